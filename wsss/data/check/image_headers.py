"""Look at many image files quickly: is each there, whole, and of the size that is said of it?

A file is opened for its header and its last two bytes. A JPEG that does not end as one was cut off
(a broken download) or padded: those few are decoded to tell.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from wsss.artifacts.progress import track
from wsss.data.check.downloads import Source
from wsss.data.check.report import Problem, Report
from wsss.data.errors import ImageError
from wsss.data.images.decode import Decoded, in_processes, inspect_all
from wsss.data.images.read import DEFAULT_MAX_PIXELS, image_size, inspect_image

_FILES_WORTH_A_POOL = 4000  # about a second of headers; processes take one to start
_CHUNK = 256
_START, _END = b"\xff\xd8", b"\xff\xd9"  # of a JPEG
Size = tuple[int, int]


def check_images(
    report: Report,
    sizes: Mapping[Path, Size | None],
    *,
    decode: bool,
    workers: int,
    source: Source,
    said_by: str,
    binding: bool,
) -> None:
    """Look at image files and add to the report what is wrong with them.

    Args:
        report: gets one problem a kind: missing, damaged, of another size.
        sizes: file → (width, height) that is said of it; None where nothing is.
        decode: decode every file in full instead of glancing at it.
        workers: processes.
        source: where missing files come from.
        said_by: who says the sizes.
        binding: whether another size is a problem; otherwise it is a note.
    """
    there = present(sizes)
    missing = [path for path in sizes if path not in there]
    if missing:
        what = f"{len(missing)} of {len(sizes)} listed images are missing"
        report.add(_in_folder(missing, what), [path.name for path in missing], source)
    found = [path for path in sizes if path in there]
    many = len(found) >= _FILES_WORTH_A_POOL
    facts: Iterator[Decoded] = (
        inspect_all(found, max_pixels=DEFAULT_MAX_PIXELS, workers=workers)
        if decode
        else in_processes(_glance, found, workers if many else 1, chunk=_CHUNK)
    )
    doing = "decoding" if decode else "reading headers"
    damaged, other = [], []
    for path, one in zip(found, track(facts, total=len(found), description=doing), strict=True):
        said = sizes[path]
        if one.error:
            damaged.append(f"{path.name} ({one.error})")
        elif said and said != (one.width, one.height):
            size = f"{one.width} x {one.height}, {said_by} says {said[0]} x {said[1]}"
            other.append(f"{path.name} ({size})")
    if damaged:
        report.add(_in_folder(found, f"{len(damaged)} images cannot be read"), damaged, source)
    if other:
        what = _in_folder(found, f"{len(other)} images are of another size than {said_by} says")
        if binding:
            report.add(what, other, source)
        else:
            report.notes.append(str(Problem(what, tuple(other))))


def present(paths: Iterable[Path]) -> set[Path]:
    """Those of the paths that exist; each folder is listed once, no file is opened."""
    by_folder: dict[Path, list[Path]] = {}
    for path in paths:
        by_folder.setdefault(path.parent, []).append(path)
    found: set[Path] = set()
    for folder, wanted in by_folder.items():
        try:
            names = set(os.listdir(folder))
        except OSError:
            continue
        found.update(path for path in wanted if path.name in names)
    return found


def _in_folder(paths: Sequence[Path], what: str) -> str:
    return f"{paths[0].parent.name}: {what}"


def _glance(path: Path) -> Decoded:
    try:
        width, height = image_size(path)
        if _is_cut_off(path):
            inspect_image(path)
        return Decoded(width=width, height=height)
    except ImageError as error:
        return Decoded(error.reason)


def _is_cut_off(path: Path) -> bool:
    """Whether a JPEG does not end as one."""
    try:
        with path.open("rb") as stream:
            if stream.read(2) != _START:
                return False
            stream.seek(-2, os.SEEK_END)
            return stream.read(2) != _END
    except OSError as error:
        raise ImageError(path, f"cannot be read: {error.strerror}") from None
