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
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"
HELD = "WSSS_GPUS_HELD"
"""Set once a process, or the one that launched it, holds the GPUs that it sees."""
SHARED = "WSSS_SHARE_GPUS"
"""Set to 1 by a person who wants jobs to share a GPU."""

_log = logging.getLogger(__name__)
_FOLDER = Path("/tmp/wsss-gpus")
_SECONDS = 1.0  # between two looks, on average
_PATIENCE = 30  # seconds that nvidia-smi may take


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
        count: how many.
        folder: of the locks; None for the machine's.

    Raises:
        ValueError: there are not so many.
        OSError: the folder cannot be written to.
    """
    if count > len(gpus):
        raise ValueError(
            f"{count} GPUs were asked for, but {len(gpus)} can be seen here; lower the resource "
            f"gpu of the rule, or look at {VISIBLE}"
        )
    if os.environ.get(SHARED) == "1":
        return list(gpus[:count])
    folder = folder or _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    if folder.stat().st_uid == os.getuid():
        folder.chmod(0o1777)
    waited = False
    while True:
        locked: list[tuple[Gpu, int]] = []
        for gpu in gpus:
            if len(locked) < count and (lock := _lock(folder / _file(gpu))) is not None:
                locked.append((gpu, lock))
        if len(locked) == count:
            _locks.extend(lock for _, lock in locked)
            return [gpu for gpu, _ in locked]
        for _, lock in locked:  # all or nothing, so that two jobs do not wait for each other
            os.close(lock)
        if not waited:
            _log.info(_taken(gpus, count, folder))
            waited = True
        time.sleep(_SECONDS * random.uniform(0.5, 1.5))


def held_over_exec() -> None:
    """Let the locks outlive `os.exec`, for a launcher that becomes another program."""
    for lock in _locks:
        os.set_inheritable(lock, True)


_locks: list[int] = []


def _listed() -> list[str]:
    """UUIDs as ``nvidia-smi -L`` lists them; the parts of a GPU that is split (MIG), not it."""
    try:
        listing = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=_PATIENCE, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
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


def _lock(path: Path) -> int | None:
    """A descriptor that holds the lock; None: another process has it."""
    try:
        lock = _opened(path)
    except FileExistsError:  # made by another process just now
        lock = _opened(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock


def _opened(path: Path) -> int:
    # O_CREAT only where it is needed: kernels refuse it for other people's files in such a folder.
    try:
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        lock = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CREAT | os.O_EXCL, 0o666)
        os.fchmod(lock, 0o666)  # whatever the umask, other people take turns as well
        return lock


def _taken(gpus: Sequence[Gpu], count: int, folder: Path) -> str:
    files = [folder / _file(gpu) for gpu in gpus]
    holders = [path.read_text(encoding="utf-8").strip() for path in files if path.exists()]
    return (
        f"waiting for {count} of {len(gpus)} GPUs; last taken by the processes "
        f"{', '.join(filter(None, holders))} ({SHARED}=1 shares them)"
    )
