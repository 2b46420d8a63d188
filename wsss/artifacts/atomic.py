"""Write under a temporary name in the same folder, flush to disk, then rename.

A reader never sees half a file: a process that is killed leaves only a temporary file, which
nothing reads and the next writer of the same target removes. Two processes that write the same
target at once do not disturb each other: each has its own temporary name, and the last one wins.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import shutil
import socket
import stat
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wsss.artifacts.write_errors import writing
from wsss.compute.machine import this_boot

_MARK = ".tmp-"
_OLD = ".old"
_MACHINE = re.sub(r"\W", "_", socket.gethostname()) + f"_{zlib.crc32(this_boot().encode()):08x}"
_TEMPORARY = re.compile(r"\..+\.tmp-(?:(\w+)-)?(\d+)(?:_\d+)?(?:\.old)?")
_LONGEST = 150  # bytes of a name that a temporary one repeats; file systems take 255
_FORGOTTEN = 7 * 86_400.0  # seconds after which that of another machine or container is removed
_ATTEMPTS = 50
_UMASK = os.umask(0o077)
os.umask(_UMASK)
_PRIVATE = 0o600  # what libraries that make a temporary file of their own leave


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Give a temporary path to write; rename it to ``target`` when the block ends without error.

    The path may be written as a file or created as a folder. On an error nothing is left and
    ``target`` stays as it was.

    Args:
        target: the final path; its folder is created. A file replaces a file there, a folder a
            folder.

    Raises:
        WriteError: there is no space or no right to write, or a folder is where the file should be.
    """
    temporary = temporary_path(target)
    with writing(target, temporary):
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(target.parent, target.name)
        _remove(temporary)  # of a dead process with this one's number
        try:
            yield temporary
            _finish(temporary)
            _rename(temporary, target)
            _flush_folder(target.parent)
        finally:
            _remove(temporary)


def write_text(target: Path, text: str) -> None:
    """Atomically write ``text`` as UTF-8."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(target: Path, content: bytes) -> None:
    """Atomically write bytes.

    Pictures are encoded in memory first: on a disk that just became full Pillow takes a short write
    for a whole one, and leaves half a picture without an error.
    """
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def write_one_of_many(target: Path, content: bytes) -> None:
    """Write one of a folder's thousands of files: whole or not at all, in a time of its own.

    Unlike `write_bytes` it does not flush, so a power cut may leave an empty file; who goes on
    with such a folder looks at the sizes. Nor does it list the folder each time: temporary files of
    dead writers are removed when a process first writes into the folder.

    Args:
        target: the final path; its folder is created.

    Raises:
        WriteError: there is no space or no right to write, or a folder is where the file should be.
    """
    temporary = temporary_path(target)
    with writing(target, temporary):
        target.parent.mkdir(parents=True, exist_ok=True)
        _clear_once(target.parent)
        try:
            temporary.write_bytes(content)
            os.replace(temporary, target)
        finally:
            with suppress(OSError):  # as a rule it has its final name by now
                temporary.unlink(missing_ok=True)


def temporary_path(target: Path) -> Path:
    """The name under which this thread writes ``target`` until it is whole."""
    is_main = threading.current_thread() is threading.main_thread()
    thread = "" if is_main else f"_{threading.get_native_id()}"
    return target.with_name(f"{_prefix(target.name)}{_MACHINE}-{os.getpid()}{thread}")


def remove_abandoned(folder: Path, name: str = "") -> None:
    """Remove temporary files of writers that no longer run; arguments as for `abandoned`."""
    for path in abandoned(folder, name):
        _remove(path)


@functools.cache
def _clear_once(folder: Path) -> None:
    remove_abandoned(folder)


def abandoned(folder: Path, name: str = "") -> list[Path]:
    """Temporary files and folders of writers that no longer run.

    Args:
        folder: it must exist.
        name: only temporary files of this target; default: of any.
    """
    prefix = _prefix(name) if name else "."
    with os.scandir(folder) as entries:
        entries_by_name = [(e.path, _TEMPORARY.fullmatch(e.name)) for e in entries]
    return [
        Path(path)
        for path, parts in entries_by_name
        if parts and parts[0].startswith(prefix) and not _in_use(parts[1], parts[2], Path(path))
    ]


def _prefix(name: str) -> str:
    short = os.fsencode(name)
    if len(short) > _LONGEST:
        beginning = short[:_LONGEST].decode(errors="ignore")
        name = f"{beginning}.{zlib.crc32(short):08x}"
    return f".{name}{_MARK}"


def _in_use(machine: str | None, pid: str, path: Path) -> bool:
    """Whether the writer of a temporary file may still be there."""
    if machine not in {_MACHINE, None}:  # its processes cannot be asked for from here
        with suppress(OSError):
            return time.time() - path.stat().st_mtime < _FORGOTTEN
        return True
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _rename(temporary: Path, target: Path) -> None:
    """Rename to the target; an existing folder is moved away first."""
    if not temporary.is_dir():
        os.replace(temporary, target)
        return
    if target.exists() and not target.is_dir():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    old = temporary.with_name(temporary.name + _OLD)
    for attempt in range(_ATTEMPTS):
        _remove(old)
        with suppress(FileNotFoundError):
            os.rename(target, old)
        try:
            os.rename(temporary, target)
        except OSError as error:
            with suppress(OSError):
                os.rename(old, target)
            another = error.errno in {errno.ENOTEMPTY, errno.EEXIST}  # put its folder there
            if not another or attempt == _ATTEMPTS - 1:
                raise
        else:
            _remove(old)
            return


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # what cannot be removed is left to the next writer
            path.unlink(missing_ok=True)


def _finish(path: Path) -> None:
    """Flush all files, and let others read them as far as the umask says.

    What links lead to belongs to others and stays as it is.
    """
    entries = [path] if path.is_file() else path.rglob("*")
    files = [entry for entry in entries if entry.is_file() and not entry.is_symlink()]
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            if stat.S_IMODE(os.fstat(descriptor).st_mode) == _PRIVATE & ~_UMASK:
                os.fchmod(descriptor, 0o666 & ~_UMASK)
        finally:
            os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
