"""Write under a temporary name in the same folder, flush to disk, then rename.

A reader never sees half a file: a process that is killed leaves only a temporary file, which
nothing reads and the next writer of the same target removes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MARK = ".tmp-"


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Give a temporary path to write; rename it to ``target`` when the block ends without error.

    The path may be written as a file or created as a folder. On an error nothing is left and
    ``target`` stays as it was.

    Args:
        target: the final path; its folder is created, a file or folder there is replaced.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    temporary = target.parent / f".{target.name}{_MARK}{os.getpid()}"
    try:
        yield temporary
        _flush(temporary)
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        os.replace(temporary, target)
        _flush_folder(target.parent)
    finally:
        _remove(temporary)


def write_text(target: Path, text: str) -> None:
    """Atomically write ``text`` as UTF-8."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _remove_abandoned(target: Path) -> None:
    prefix = f".{target.name}{_MARK}"
    for entry in target.parent.iterdir():
        if entry.name.startswith(prefix) and not _alive(entry.name.removeprefix(prefix)):
            _remove(entry)


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    files = [path] if path.is_file() else [entry for entry in path.rglob("*") if entry.is_file()]
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
