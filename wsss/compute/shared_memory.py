"""Room in ``/dev/shm``, where processes share batches and semaphores; containers have little.

A process that finds it full fails in ways that name something else, or leaves others waiting.
"""

from __future__ import annotations

import os
from pathlib import Path

from wsss.errors import WsssError

FOLDER = Path("/dev/shm")
_REMEDY = (
    "free space there, use fewer workers (compute.workers; 1 needs no shared memory), or start the "
    "container with --shm-size=2g or --ipc=host"
)


class SharedMemoryError(WsssError, RuntimeError):
    """There is too little shared memory; the message names the folder and what to do."""

    @classmethod
    def during(cls, what: str, reason: object) -> SharedMemoryError:
        """The error of something that failed for want of shared memory."""
        return cls(f"{FOLDER} ({_free()} free): {what}: {reason}; {_REMEDY}")


def check_room(needed: int, what: str) -> None:
    """Check that shared memory has room, before processes start that would wait for it.

    Args:
        needed: bytes.
        what: needs them, in the plural, for the message.

    Raises:
        SharedMemoryError: there is less.
    """
    free = free_bytes()
    if free is not None and free < needed:
        raise SharedMemoryError(
            f"{FOLDER} has {_mebibytes(free)} free, but {what} need {_mebibytes(needed)} there; "
            f"{_REMEDY}"
        )


def free_bytes() -> int | None:
    """Bytes that are free in shared memory; None where this cannot be said."""
    try:
        status = os.statvfs(FOLDER)
    except OSError:  # no Linux
        return None
    if not status.f_blocks:  # without limit
        return None
    return status.f_bavail * status.f_frsize


def _free() -> str:
    free = free_bytes()
    return "unknown" if free is None else _mebibytes(free)


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"
