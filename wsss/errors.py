"""The base of the project's errors; which errors of reading say nothing about the file."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path


class WsssError(Exception):
    """Something that a person can mend: the message names the file, what was found, what to do.

    A reader of foreign files raises this or nothing, whatever they hold. Any other exception of a
    reader is a fault of the program; fuzzing looks for those.
    """


class ReadError(WsssError, RuntimeError):
    """A file cannot be read at present: too many files are open, a network share does not answer …

    This says nothing about its content. Nothing may therefore call the file damaged, list it as
    unusable, or replace it.
    """


_SHARE = "check the disk or the network share"
_MEMORY = "use fewer workers (compute.workers), or free memory"
_REMEDIES = {
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine: end other programs",
    errno.ENOMEM: _MEMORY,
    errno.EACCES: "let this user read it (ask whoever wrote it)",
    errno.EPERM: "let this user read it (ask whoever wrote it)",
} | dict.fromkeys(
    (
        errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EREMOTEIO, errno.ENOLINK,
        errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ECONNRESET,
        errno.ECONNREFUSED, errno.ECONNABORTED, errno.ENODEV, errno.ENOLCK, errno.EBUSY,
        errno.EAGAIN, errno.EINTR,
    ),
    _SHARE,
)  # fmt: skip
"""Errors that come from the machine, not from what a file holds."""
_IN_TEXT = re.compile(r"(?:errno = |os error |code: )(\d+)")


def error_numbers(error: BaseException) -> list[int]:
    """The numbers (``errno``) of an error; HDF5 and safetensors put them into its text."""
    if isinstance(error, OSError) and error.errno is not None:
        return [error.errno]
    return [int(number) for number in _IN_TEXT.findall(str(error))]


def raise_unless_about(path: Path, error: BaseException) -> None:
    """Raise an error that does not come from what the file holds; return if it may.

    Args:
        path: the file that was read.

    Raises:
        ReadError: it cannot be read at present; the message says why and what to do.
    """
    if isinstance(error, ReadError):
        raise error
    if isinstance(error, MemoryError):
        raise ReadError(f"{path}: does not fit into memory; {_MEMORY}") from None
    numbers = error_numbers(error)
    if isinstance(error, OSError) and not numbers:
        numbers = _opening(path)  # safetensors says of every file that it cannot open: not there
    number = next((number for number in numbers if number in _REMEDIES), None)
    if number is not None:
        raise ReadError(
            f"{path}: cannot be read: {os.strerror(number)}; {_REMEDIES[number]}, then run the "
            "same command again"
        ) from None


def _opening(path: Path) -> list[int]:
    """The error's number when a file is opened, if it cannot be."""
    try:
        with path.open("rb"):
            return []
    except OSError as error:
        return error_numbers(error)
