"""What may be deleted from the folder of a run, without a result and without a rerun.

A work folder holds what a training resumes from: the largest part of a run, and of no use once the
checkpoint is written. Folders called ``.cache`` hold what a rerun takes over image by image. A file
``.planes`` waits for the job that runs its CRFs, and stays where the engine was killed. Where a run
has another number of parts than before, the earlier parts lie beside the new ones.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsss.artifacts.atomic import abandoned, remove_abandoned
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.exclusive_lock import exclusive_lock
from wsss.compute.shards import part_of
from wsss.data.counted import counted
from wsss.pipeline.engine_lock import engines_died
from wsss.pipeline.products import PRODUCTS
from wsss.pipeline.run_folder import PARTS, not_a_run
from wsss.score.page.files import FILES, read_shown

What = Literal["work", "cache", "all"]
_CHECKPOINTS = {"refine": "checkpoint.safetensors", "segmenter": "weights.safetensors"}
_WORK, _CACHE, _LOCK = "work", ".cache", ".lock"
_PNG = "png"
_PLANES, _PREDICTIONS = ".planes", ("predictions", "refiner_predictions")
_LOCKS = Path(".snakemake/locks")


@dataclass(frozen=True)
class Entry:
    """A file or a folder that may be deleted, or that stays for a reason."""

    path: Path
    size: int
    """Bytes that its deletion frees; further names of a file that stays count nothing."""
    why: str
    stays: bool = False


def entries(folder: Path, what: What) -> list[Entry]:
    """What `clean` would delete, and what of its kind stays; links are not followed.

    Args:
        folder: of a run, or of several.
        what: work folders of finished trainings, what reruns take over (caches of items, planes
            without their CRFs, parts of an earlier number of parts), or both; in any case temporary
            files of processes that are gone, and planes whose shard is there.

    Raises:
        ArtifactError: the folder is not that of a run.
    """
    if not any((folder / name).is_dir() for name in PARTS):
        raise not_a_run(folder)
    return list(_entries(folder, what))


def clean(folder: Path, what: What) -> list[Entry]:
    """Delete what `entries` lists; gives what was deleted, and what stays.

    Raises:
        ArtifactError: the folder is not that of a run, or an engine is running there.
    """
    _refuse_engine(folder)
    done = []
    for entry in entries(folder, what):
        done.append(entry if entry.stays else _delete(entry))
    return done


def _delete(entry: Entry) -> Entry:
    if part_of(entry.path.stem) and entry.path.is_file():
        entry.path.unlink(missing_ok=True)
        return entry
    if not entry.path.is_dir():
        remove_abandoned(entry.path.parent)
        return entry
    try:
        with exclusive_lock(entry.path) if entry.path.name == _WORK else nullcontext():
            shutil.rmtree(entry.path)
    except ArtifactError as error:
        return Entry(entry.path, 0, str(error).removeprefix(f"{entry.path}: "), stays=True)
    return entry


def _entries(folder: Path, what: What) -> Iterator[Entry]:
    for directory, names, files in os.walk(folder):
        here = Path(directory)
        for path in abandoned(here):
            names[:] = [name for name in names if name != path.name]
            yield Entry(path, _size(path), "a temporary file of a process that is gone")
        if here.parent.name in _PREDICTIONS:
            yield from _planes(here, files, what)
        for entry in _earlier_parts(here, [*names, *files]) if what != "work" else ():
            names[:] = [name for name in names if name != entry.path.name]
            yield entry
        for name in sorted(names):
            path = here / name
            if path.is_symlink():
                continue
            if name == _WORK and here.name in _CHECKPOINTS:
                names.remove(name)
                if what != "cache":
                    yield _work(path, here / _CHECKPOINTS[here.name])
            elif name == _CACHE:
                names.remove(name)
                if what != "work":
                    why = "items that a rerun would take over: it computes every image again"
                    yield Entry(path, _size(path), why)


def _planes(here: Path, files: list[str], what: What) -> Iterator[Entry]:
    for path in sorted(here / name for name in files if name.endswith(_PLANES)):
        if path.with_suffix(".h5").exists():
            yield Entry(path, _size(path), "its shard is written")
        elif what != "work":
            why = "the network's part of a prediction whose CRFs did not run: it runs again"
            yield Entry(path, _size(path), why)


def _earlier_parts(here: Path, names: list[str]) -> Iterator[Entry]:
    """Shards, PNGs and listings of all numbers of parts but the newest, once that is whole.

    All stay where result pages show another number: the configuration went back to it, or the run
    with the new one is not finished.
    """
    split, suffixes = (here.parent, ("", ".json")) if here.name == _PNG else (here, (".h5",))
    if split.parent.name not in PRODUCTS:  # photos may be called 1-of-2, and so may runs
        return
    paths = [here / name for name in sorted(names) if os.path.splitext(name)[1] in suffixes]
    paths = [path for path in paths if not path.is_symlink()]
    parts = {path: part for path in paths if (part := part_of(path.stem))}
    if len({count for _, count in parts.values()}) < 2:
        return
    _, count = parts[max(parts, key=lambda path: path.stat().st_mtime)]
    if {number for number, of in parts.values() if of == count} != set(range(1, count + 1)):
        return
    if (shown := _counts_on_pages(split.parents[1])) and count not in shown:
        return
    for path, (_, of) in parts.items():
        why = f"of {counted(of, 'part')}, the newest are of {count}; shards: {of} makes it again"
        if of != count:
            yield Entry(path, _size(path), why)


def _counts_on_pages(run: Path) -> set[int]:
    """The numbers of parts that the pages of a run and of those below it, which share it, show."""
    counts = set()
    for depth in range(3):
        for path in run.glob("/".join([*"*" * depth, "page", FILES])):
            with suppress(ArtifactError):
                for shards in read_shown(path.parents[1]).run.shards.values():
                    counts |= {part[1] for shard in shards if (part := part_of(shard.stem))}
    return counts


def _work(work: Path, checkpoint: Path) -> Entry:
    try:
        finished = checkpoint.stat().st_mtime_ns
    except OSError:
        return Entry(work, _size(work), "its training is not finished", stays=True)
    if any(path.stat().st_mtime_ns > finished for path in work.rglob("*") if path.is_file()):
        return Entry(
            work,
            _size(work),
            f"a training went on after {checkpoint.name} was written, and is not finished",
            stays=True,
        )
    return Entry(work, _size(work), "states of a finished training: a rerun starts anew")


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [entry for entry in path.rglob("*") if entry.is_file()]
    total = 0
    for file in files:
        with suppress(OSError):
            status = file.lstat()
            total += status.st_size if status.st_nlink == 1 else 0
    return total


def _refuse_engine(folder: Path) -> None:
    """An engine that runs has locks in the folder that holds ``results``."""
    for parent in folder.absolute().parents:
        locks = parent.parent / _LOCKS
        is_locked = parent.name == "results" and locks.is_dir() and any(locks.iterdir())
        if is_locked and not engines_died(parent.parent):
            raise ArtifactError(
                f"{locks}: an engine is running there; wait for it. If it was killed, on another "
                "machine or before a restart of this one, delete the files in that folder"
            )
