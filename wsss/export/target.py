"""The place that an export is written to: a folder or a file of its own, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from wsss.artifacts.atomic import atomic_path
from wsss.artifacts.watch import leave_out
from wsss.export.errors import ExportError

ABOUT = "export.json"
"""In an exported folder: what it was made from. A folder that has it may be replaced."""


@contextmanager
def new_folder(out: Path, about: Mapping[str, object], *, overwrite: bool) -> Iterator[Path]:
    """A temporary folder that takes the place of ``out`` when the block ends without error.

    Args:
        out: the folder; it may be missing or empty.
        about: what is written to `ABOUT`.
        overwrite: replace an older export.

    Raises:
        ExportError: it holds other things, or an older export that is not to be replaced, or no
            other folder can take its place.
    """
    absolute = out.resolve()  # of "." or "a/.." the name is that of the folder
    if Path.cwd().is_relative_to(absolute):
        raise ExportError(
            f"{out}: is the working folder, or holds it; name a new folder in it, or work elsewhere"
        )
    if absolute.is_mount():  # the root of a disk or of a container's volume
        raise ExportError(f"{out}: is a mount point; name a new folder in it")
    if out.exists() and not out.is_dir():
        raise ExportError(f"{out}: is a file; name a folder")
    names = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    if names and ABOUT not in names:
        raise ExportError(f"{out}: holds other things, e.g. {names[0]!r}; name a new folder")
    if names and not overwrite:
        raise ExportError(
            f"{out}: holds an older export, perhaps edited since; name a new folder, or pass "
            "--overwrite to replace all of it"
        )
    with atomic_path(absolute) as folder:
        folder.mkdir()
        leave_out(folder)
        text = json.dumps(dict(about), indent=2, ensure_ascii=False)
        (folder / ABOUT).write_text(text + "\n", encoding="utf-8")
        yield folder


@contextmanager
def new_file(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """A temporary file that takes the place of ``out`` when the block ends without error.

    Raises:
        ExportError: ``out`` is there and not to be replaced.
    """
    if out.exists() and (out.is_dir() or not overwrite):
        kind = "a folder" if out.is_dir() else "there already"
        raise ExportError(f"{out}: is {kind}; name a new file, or pass --overwrite to replace one")
    with atomic_path(out) as temporary:
        yield temporary
