"""Notice files that changed since a stage read them, where a rule cannot list them as inputs.

Snakemake compares times of change: it misses a file that was removed, or replaced by an older one,
and a rule cannot list 100,000 photos. So a rule carries a text as parameter, its *state*, which
changes when one of the files does. The stage writes the state into a *record* next to its output,
with sizes, times and digests of the files as it read them. While the files are those of the record,
the state stays the recorded one. A file with other times (touched, copied anew) is compared by its
content.
"""

from __future__ import annotations

import json
import logging
import operator
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG

from wsss.artifacts.atomic import write_text
from wsss.artifacts.checksum import json_with_checksum, verified_json
from wsss.artifacts.digest import digest_file, digest_json
from wsss.artifacts.errors import ArtifactError, WriteError
from wsss.artifacts.write_errors import writing
from wsss.config.paths import RESULTS

_log = logging.getLogger(__name__)
Stamp = tuple[int, ...]
"""Size in bytes, times of change of content and of status in ns (nobody can set the last one); or
empty: no such file."""
_SETTLED_NS = 2_000_000_000
_LEFT_OUT = ".no-photos"


def stamp(path: str | Path) -> Stamp:
    """The stamp of a file; links are followed."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ()
    if not S_ISREG(status.st_mode):
        return ()
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def is_settled(seen: Stamp, started_ns: int) -> bool:
    """Whether a file was written so long before a time that writing it again changes its stamp."""
    return seen[1] < started_ns - _SETTLED_NS


def files_below(
    folder: Path,
    *,
    exclude: Iterable[Path] = (),
    photos: bool = False,
    onerror: Callable[[OSError], object] | None = None,
) -> Iterator[os.DirEntry[str]]:
    """The files below a folder; links are followed, hidden names left out.

    The results of the workflow are left out, too, unless the folder itself lies among them: those
    of a workflow that ran in the working folder or in this one. Photos may lie in ``results``, too.

    Args:
        exclude: files and folders that do not count.
        photos: leave out folders in it that `leave_out` marked.
        onerror: called for a folder that cannot be listed; None: it counts as empty.
    """
    excluded = {os.path.abspath(path) for path in exclude}
    names = {os.path.basename(path) for path in excluded}
    results = [home / RESULTS for home in (Path(), folder) if _is_of_workflow(home)]
    visited = {os.path.realpath(path) for path in results} - {os.path.realpath(folder)}
    mark = _LEFT_OUT if photos else ""
    return _entries(str(folder), excluded, names, mark, visited, onerror or str)


def leave_out(folder: Path) -> None:
    """Mark a folder of masks, so that they are no photos where it lies among photos.

    Raises:
        WriteError: there is no space or no right to write.
    """
    with writing(folder):
        (folder / _LEFT_OUT).touch()


def _is_of_workflow(folder: Path) -> bool:
    """Whether the workflow ran there, or a stage by hand."""
    return (folder / ".snakemake").is_dir() or any(folder.glob(f"{RESULTS}/*/manifest"))


def stamps_of(entries: Iterable[os.DirEntry[str]]) -> dict[str, Stamp]:
    """Path → stamp of files."""
    stamps = ((entry.path.removeprefix("./"), stamp(entry.path)) for entry in entries)
    return {path: there for path, there in stamps if there}


def digest_listing(folder: Path, suffix: str = "", *, times: bool = True) -> str:
    """The sha256 of names, sizes and times of change of the files below a folder, none opened.

    Args:
        folder: an empty text is returned where there is none.
        suffix: of the files that count, e.g. ``.png``.
    """
    if not folder.is_dir():
        return ""
    entries = (e for e in files_below(folder) if e.name.lower().endswith(suffix))
    return digest_json(
        sorted(
            (os.path.relpath(path, folder), *(there if times else there[:1]))
            for path, there in stamps_of(entries).items()
        )
    )


def write_listing(folder: Path) -> None:
    """Write next to a folder which files it holds, so that the workflow notices a missing one."""
    write_text(listing_path(folder), json.dumps({"files": digest_listing(folder, times=False)}))


def is_listed(folder: Path) -> bool:
    """Whether a folder holds what its listing says, by names and sizes."""
    try:
        content = json.loads(listing_path(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(content == {"files": digest_listing(folder, times=False)})


def listing_path(folder: Path) -> Path:
    """The file of `write_listing`."""
    return folder.with_name(f"{folder.name}.json")


def state(files: Mapping[str, Stamp], record: Path, *, remember: bool = True) -> str:
    """The state of the files: that of the record if they are those that it lists, else a new one.

    Args:
        files: path → stamp of the files that count now; others that the record lists are looked up.
        record: what `write_record` wrote; need not exist.
        remember: note new stamps of the same content there, which saves reading it again.
    """
    started = time.time_ns()
    text, stamps, digests = _read(record)
    now = dict(files) | {path: stamp(path) for path in stamps.keys() - files.keys()}
    others = [path for path in sorted(now) if now[path] != stamps.get(path)]
    if text and not others:
        return text
    sizes_equal = all(now[path][:1] == stamps.get(path, ())[:1] for path in others)
    if text and sizes_equal and _same_content(others, digests):
        if remember:
            with suppress(WriteError, OSError):
                write_record(record, text, now, digests, started)
        return text
    if text:
        more = f" and {len(others) - 1} other{'s' * (len(others) > 2)}" if others[1:] else ""
        _log.warning("%s%s: new, missing or written since the last run", others[0], more)
    present = sorted((path, there) for path, there in now.items() if there)
    return f"{len(present)} files, {digest_json(present)[:16]}"


def write_record(
    record: Path,
    text: str,
    stamps: Mapping[str, Stamp],
    digests: Mapping[str, str],
    started_ns: int,
) -> None:
    """Write what a stage read.

    Args:
        text: the state that the workflow gave the stage.
        stamps: path → stamp of each file, taken before it was read.
        digests: path → sha256; a file without one counts as another one when its stamp changes.
        started_ns: time before the stamps were taken; a file that is not settled is compared by
            its content next time.

    Raises:
        WriteError: it cannot be written.
    """
    files = {}
    for path, there in sorted(stamps.items()):
        digest = digests.get(path, "")
        sure = not digest or is_settled(there, started_ns)
        files[path] = [there if sure else there[:1], digest]
    write_text(record, json.dumps(json_with_checksum({"state": text, "files": files})) + "\n")


def _read(record: Path) -> tuple[str, dict[str, Stamp], dict[str, str]]:
    """State, stamps and digests; empty if there is no readable record."""
    try:
        content = verified_json(json.loads(record.read_text(encoding="utf-8")), record, "")
    except (OSError, ValueError, ArtifactError):
        return "", {}, {}
    files = content["files"].items()
    return (
        content["state"],
        {path: tuple(there) for path, (there, _) in files},
        {path: digest for path, (_, digest) in files},
    )


def _same_content(paths: Sequence[str], digests: Mapping[str, str]) -> bool:
    """Whether the files have the content that was recorded."""
    if not all(map(digests.get, paths)):
        return False
    try:
        with ThreadPoolExecutor() as pool:
            digests_now = pool.map(digest_file, map(Path, paths))
            return all(map(operator.eq, digests_now, map(digests.__getitem__, paths)))
    except OSError:
        return False


def _entries(
    folder: str,
    excluded: Collection[str],
    names: Collection[str],
    mark: str,
    visited: set[str],
    onerror: Callable[[OSError], object],
) -> Iterator[os.DirEntry[str]]:
    """As `files_below`; ``names`` are those of what is excluded, a file ``mark`` excludes its
    folder, ``visited`` folders may be met again through links."""
    target = os.path.realpath(folder)
    if target in visited:
        return
    visited.add(target)
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        onerror(error)
        return
    for entry in visible:
        if entry.name in names and os.path.abspath(entry.path) in excluded:
            continue
        is_folder = False
        with suppress(OSError):  # links that lead to each other
            is_folder = entry.is_dir()
        if is_folder and mark and os.path.lexists(os.path.join(entry.path, mark)):
            continue
        if is_folder:
            yield from _entries(entry.path, excluded, names, mark, visited, onerror)
        else:
            yield entry
