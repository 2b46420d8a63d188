"""The GPUs of this machine, each for one job at a time.

Jobs that start at once on one machine would all take the first GPU, and fail together when its
memory is spent. So a job takes a lock on a GPU before it first touches CUDA, waits while all are
taken, and holds it until it ends, however it ends. Locks are files in a folder of the machine, not
of the project, so that they hold between projects and people. Under Slurm they hold between the
processes of one job; between jobs Slurm itself keeps GPUs apart.
"""

from __future__ import annotations

import fcntl
import logging
import os
import random
import re
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from wsss.compute.machine import output_of
from wsss.errors import WsssError

VISIBLE = "CUDA_VISIBLE_DEVICES"
HELD = "WSSS_GPUS_HELD"
"""Set once a process, or the one that launched it, holds the GPUs that it sees."""
SHARED = "WSSS_SHARE_GPUS"
"""Set to 1 by a person who wants jobs to share a GPU."""

_log = logging.getLogger(__name__)
_FOLDER = Path("/tmp/wsss-gpus")
_DRIVER_FOLDER = Path("/proc/driver/nvidia/gpus")
_FOR_ALL = 0o1777  # everybody makes files, nobody removes those of others
_SECONDS = 1.0  # between two looks, on average
_PATIENCE = 30  # seconds that nvidia-smi may take


class GpuLockError(WsssError, RuntimeError):
    """Jobs cannot take turns: somebody else's file or link is where the locks should be."""


@dataclass(frozen=True)
class Gpu:
    """A GPU that CUDA would see."""

    name: str
    """What ``CUDA_VISIBLE_DEVICES`` calls it."""
    key: str
    """Its UUID where it is known: the same however it is named."""


def visible_gpus() -> list[Gpu]:
    """The GPUs that this process may use, in CUDA's order where that was given.

    Empty where ``nvidia-smi`` lists none.
    """
    listed = _listed()
    given = os.environ.get(VISIBLE)
    if given is None:
        return [Gpu(key, key) for key in listed]
    names = [name.strip() for name in given.split(",")]
    if not listed or not all(names) or "-1" in names:
        return []
    return [Gpu(name, _key(name, listed)) for name in names]


def claim_gpus(gpus: Sequence[Gpu], count: int = 1, folder: Path | None = None) -> list[Gpu]:
    """Wait until ``count`` of the GPUs are free, and hold them until this process ends.

    Args:
        gpus: those to choose from, the preferred first.
        folder: of the locks; None for the machine's.

    Raises:
        ValueError: there are not so many.
        GpuLockError: the folder or a file in it is not what this package makes, or cannot be
            written to.
    """
    if count > len(gpus):
        raise ValueError(
            f"{count} GPUs were asked for, but {len(gpus)} can be seen here; lower the resource "
            f"gpu of the rule, or look at {VISIBLE}"
        )
    if os.environ.get(SHARED) == "1":
        return list(gpus[:count])
    folder = folder or _FOLDER
    with _opened_folder(folder) as locks:
        waited = False
        while True:
            locked: list[tuple[Gpu, int]] = []
            for gpu in gpus:
                if len(locked) < count and (lock := _lock(folder / _file(gpu), locks)) is not None:
                    locked.append((gpu, lock))
            if len(locked) == count:
                _locks.extend(lock for _, lock in locked)
                return [gpu for gpu, _ in locked]
            for _, lock in locked:  # all or nothing, so that two jobs do not wait for each other
                os.close(lock)
            if not waited:
                _log.info(_taken(gpus, count, locks))
                waited = True
            time.sleep(_SECONDS * random.uniform(0.5, 1.5))


def refuse_parts(gpus: Sequence[Gpu], request: str) -> Sequence[Gpu]:
    """The GPUs, of which each must be a whole one.

    Args:
        gpus: to choose from.
        request: what needs that, for the message: ``GPU 1 was``.

    Raises:
        ValueError: one is a part (MIG): CUDA shows a process no second one, and NCCL takes none.
    """
    if parts := [gpu.key for gpu in gpus if gpu.key.startswith("MIG-")]:
        raise ValueError(
            f"{request} asked for, but {parts[0]} is a part of a GPU (MIG), and a process sees but "
            f"one; set compute.device to cuda and the resource gpu of the rule to 1, or let "
            f"{VISIBLE} name whole GPUs"
        )
    return gpus


def release_gpus() -> None:
    """Give back what this process holds, for what cannot use it."""
    while _locks:
        os.close(_locks.pop())


def signs_of_gpus() -> str:
    """What says that this process may use GPUs, as the start of a sentence; empty where nothing.

    A container to which GPUs were not passed has no ``nvidia-smi``, but the driver's files of its
    host and its environment.
    """
    given = os.environ.get(VISIBLE)
    if given is not None and (not given.strip() or "-1" in given.split(",")):
        return ""  # hidden on purpose
    if gpus := visible_gpus():
        return f"nvidia-smi lists {len(gpus)} GPU{'s' * (len(gpus) > 1)}"
    if given is not None:
        return f"{VISIBLE} is {given}"
    count = len(list(_DRIVER_FOLDER.glob("*")))
    return f"the driver lists {count} GPU{'s' * (count > 1)}" if count else ""


def held_over_exec() -> None:
    """Let the locks outlive `os.exec`, for a launcher that becomes another program."""
    for lock in _locks:
        os.set_inheritable(lock, True)


_locks: list[int] = []


def _listed() -> list[str]:
    """UUIDs as ``nvidia-smi -L`` lists them; the parts of a GPU that is split (MIG), not it."""
    listing = output_of(["nvidia-smi", "-L"], _PATIENCE)
    keys: list[str] = []
    for key in re.findall(r"UUID: ([A-Za-z]+-[\w/-]+)", listing):
        if key.startswith("MIG-") and keys and not keys[-1].startswith("MIG-"):
            keys.pop()
        keys.append(key)
    return keys


def _key(name: str, listed: Sequence[str]) -> str:
    if name.isdigit():
        return listed[int(name)] if int(name) < len(listed) else name
    return next((key for key in listed if key.startswith(name)), name)


def _file(gpu: Gpu) -> str:
    job = os.environ.get("SLURM_JOB_ID")
    return re.sub(r"[^\w-]", "_", gpu.key) + (f".slurm-{job}" if job else "")


@contextmanager
def _opened_folder(folder: Path) -> Iterator[int]:
    """A descriptor of the folder of the locks, which is made where it is missing.

    It lies where everybody may write. Somebody else could have put a link there, through which
    modes and files of another folder would be changed.
    """
    try:
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        reason = "is a link" if folder.is_symlink() else f"is no usable folder ({error.strerror})"
        raise _unusable(folder, reason) from None
    try:
        status = os.fstat(descriptor)
        if status.st_uid == os.getuid():
            os.fchmod(descriptor, _FOR_ALL)
        elif stat.S_IMODE(status.st_mode) != _FOR_ALL:
            mode = f"{stat.S_IMODE(status.st_mode):o}"
            raise _unusable(folder, f"has the mode {mode}, expected {_FOR_ALL:o}")
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(path: Path, folder: int) -> int | None:
    """A descriptor that holds the lock; None: another process has it."""
    try:
        try:
            lock = _opened(path.name, folder)
        except FileExistsError:  # made by another process just now
            lock = _opened(path.name, folder)
    except OSError as error:
        raise _unusable(path, f"cannot be opened ({error.strerror})") from None
    status = os.fstat(lock)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        os.close(lock)
        raise _unusable(path, "is no file, or has a second name")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock


def _opened(name: str, folder: int) -> int:
    # O_CREAT only where it is needed: kernels refuse it for other people's files in such a folder.
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        lock = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder)
        os.fchmod(lock, 0o666)  # whatever the umask, other people take turns as well
        return lock


def _unusable(path: Path, reason: str) -> GpuLockError:
    return GpuLockError(
        f"{path}: {reason}, so jobs cannot take turns on GPUs there; remove it, or ask the person "
        f"to whom it belongs; {SHARED}=1 goes on without turns"
    )


def _taken(gpus: Sequence[Gpu], count: int, folder: int) -> str:
    holders = []
    for gpu in gpus:
        with suppress(OSError):
            lock = os.open(_file(gpu), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
            holders += re.findall(r"^\d+$", os.read(lock, 20).decode("ascii", "replace"))
            os.close(lock)
    return (
        f"waiting for {count} of {len(gpus)} GPUs; last taken by the processes "
        f"{', '.join(holders)} ({SHARED}=1 shares them)"
    )
