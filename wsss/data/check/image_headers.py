"""Check many image files quickly: is each present, complete, and of the stated size?

Only the header and the last two bytes of a file are read. A JPEG without end marker was cut off (a
broken download) or padded; only these few are decoded to distinguish the two.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from wsss.artifacts.progress import track
from wsss.data.check.downloads import Source
from wsss.data.check.report import Problem, Report
from wsss.data.errors import ImageError
from wsss.data.images.decode import in_processes, inspect_all
from wsss.data.images.read import DEFAULT_MAX_PIXELS, ImageFacts, image_size, inspect_image
from wsss.errors import raise_unless_about

_FILES_WORTH_A_POOL = 4000  # about one second of headers; processes take as long to start
_CHUNK = 256
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
Size = tuple[int, int]


def check_images(
    report: Report,
    sizes: Mapping[Path, Size | None],
    source: Source,
    stated_by: str,
    *,
    binding: bool,
    decode: bool,
    workers: int,
) -> None:
    """Check image files, and report those that are missing, damaged or of another size.

    Args:
        report: receives one problem of each kind.
        sizes: file → stated (width, height); None if none is stated.
        source: the download that contains the files.
        binding: whether another size is a problem; otherwise it is a note.
        decode: decode every file in full instead of reading headers.
    """
    existing = present(sizes)
    missing = [path for path in sizes if path not in existing]
    if missing:
        what = f"{len(missing)} of {len(sizes)} listed images are missing"
        report.add(_in_folder(missing, what), [path.name for path in missing], source)
    files = [path for path in sizes if path in existing]
    if decode:
        facts = inspect_all(files, max_pixels=DEFAULT_MAX_PIXELS, workers=workers)
    else:
        processes = workers if len(files) >= _FILES_WORTH_A_POOL else 1
        facts = in_processes(_read_header, files, processes, chunk=_CHUNK)
    action = "decoding" if decode else "reading headers"
    damaged, other_size = [], []
    for path, image in zip(files, track(facts, total=len(files), description=action), strict=True):
        stated = sizes[path]
        if image.error:
            damaged.append(f"{path.name} ({image.error})")
        elif stated and stated != (image.width, image.height):
            size = f"{image.width} x {image.height}, {stated_by} says {stated[0]} x {stated[1]}"
            other_size.append(f"{path.name} ({size})")
    if damaged:
        report.add(_in_folder(files, f"{len(damaged)} images cannot be read"), damaged, source)
    if other_size:
        what = f"{len(other_size)} images are of another size than {stated_by} says"
        problem = Problem(_in_folder(files, what), tuple(other_size), source)
        if binding:
            report.problems.append(problem)
        else:
            report.notes.append(str(problem))


def present(paths: Iterable[Path]) -> set[Path]:
    """Those of the paths that exist; lists each folder once and opens no file.

    Raises:
        ReadError: a folder cannot be listed at present.
    """
    by_folder: dict[Path, list[Path]] = {}
    for path in paths:
        by_folder.setdefault(path.parent, []).append(path)
    existing: set[Path] = set()
    for folder, files in by_folder.items():
        try:
            names = set(os.listdir(folder))
        except OSError as error:
            raise_unless_about(folder, error)
            continue
        existing.update(path for path in files if path.name in names)
    return existing


def _in_folder(paths: Sequence[Path], what: str) -> str:
    return f"{paths[0].parent.name}: {what}"


def _read_header(path: Path) -> ImageFacts:
    try:
        width, height = image_size(path)
        if _is_cut_off(path):
            inspect_image(path)
        return ImageFacts(width, height)
    except ImageError as error:
        return ImageFacts(error=error.reason)


def _is_cut_off(path: Path) -> bool:
    """Whether a JPEG does not end as one."""
    try:
        with path.open("rb") as stream:
            if stream.read(2) != _JPEG_START:
                return False
            stream.seek(-2, os.SEEK_END)
            return stream.read(2) != _JPEG_END
    except OSError as error:
        raise_unless_about(path, error)
        raise ImageError(path, f"cannot be read: {error.strerror}") from None
