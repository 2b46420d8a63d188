"""What went wrong while writing, as one message: the file, what happened, what to do.

The libraries that write for us say a full disk in different ways: Python by ``errno``, HDF5 and
safetensors by a number within their text, torch not at all.
"""

from __future__ import annotations

import errno
import os
import shutil
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wsss.artifacts.errors import WriteError
from wsss.errors import error_numbers

_AGAIN = "then run the same command again"
_REMEDIES = {
    errno.ENOSPC: f"free space there or choose another folder, {_AGAIN}",
    errno.EDQUOT: f"free space, have the quota raised or choose another folder, {_AGAIN}",
    errno.EFBIG: f"raise the limit on the size of files (ulimit -f), {_AGAIN}",
    errno.EROFS: "choose a folder on a file system that is mounted for writing",
    errno.EACCES: "let this user write there, or choose another folder",
    errno.EPERM: "let this user write there, or choose another folder",
    errno.ENOTDIR: "something on the way there is a file and no folder; move it or choose another "
    "folder",
    errno.EEXIST: "something on the way there is a file and no folder; move it or choose another "
    "folder",
    errno.EISDIR: "there is a folder of this name; name a file",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: f"check the disk or the network share, {_AGAIN}",
    errno.ESTALE: f"check the network share, {_AGAIN}",
    errno.ENOENT: "the folder vanished meanwhile; see that nothing else removes it, and run again",
}
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""Nothing but writing fails so, whichever file the error names."""
_SEMAPHORES = "multiprocessing.synchronize"
_TORCH = ("PytorchStreamWriter", "inline_container", "basic_ios::clear", "iostream error")


@contextmanager
def writing(target: Path, *paths: Path) -> Iterator[None]:
    """Turn what fails for want of space or rights into one message.

    Args:
        target: what is written, as a person knows it.
        paths: where it is written meanwhile.

    Raises:
        WriteError: ``target`` cannot be written. Other errors pass.
    """
    try:
        yield
    except WriteError:
        raise
    except Exception as error:
        error_code = _error_code(error, [target, *paths])
        if error_code is None:
            raise
        raise WriteError(_message(target, error_code)) from error


def _error_code(error: BaseException, paths: list[Path]) -> int | None:
    """The error's number, if it is about writing."""
    if isinstance(error, OSError) and error.errno is not None:
        if _is_semaphore(error):
            return None
        if error.errno in _FULL:
            return error.errno
        named = [str(name) for name in (error.filename, error.filename2) if name]
        is_ours = any(_within(name, place) for name in named for place in paths)
        return error.errno if is_ours and error.errno in _REMEDIES else None
    if full := _FULL.intersection(error_numbers(error)):
        return min(full)
    if isinstance(error, RuntimeError) and any(word in str(error) for word in _TORCH):
        return errno.ENOSPC if _free(paths[0]) < 2**20 else errno.EIO
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None if before is None else _error_code(before, paths)


def _is_semaphore(error: BaseException) -> bool:
    """Whether multiprocessing failed to make a semaphore, whose place is never the target's."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and frames[-1][0].f_globals.get("__name__") == _SEMAPHORES


def _within(name: str, directory: Path) -> bool:
    """Whether a file is the place, below it, or a folder on the way there."""
    path, directory = Path(os.path.abspath(name)), Path(os.path.abspath(directory))
    return path == directory or directory in path.parents or path in directory.parents


def _message(target: Path, error_code: int) -> str:
    reason = os.strerror(error_code)
    if error_code in {errno.ENOSPC, errno.EDQUOT}:
        reason += f" ({_free(target) / 2**20:.1f} MiB free without it)"
    return (
        f"{target}: cannot be written: {reason}; {_REMEDIES[error_code]}. What was there before is "
        "unchanged"
    )


def _free(path: Path) -> int:
    """Bytes that are free where a path is or would be."""
    for directory in (path, *path.absolute().parents):
        try:
            return shutil.disk_usage(directory).free
        except OSError:
            continue
    return 0
