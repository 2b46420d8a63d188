"""One training per work folder: two of them would remove each other's checkpoints."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.write_errors import writing

_NAME = ".lock"
_HELD = frozenset({errno.EACCES, errno.EAGAIN})


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Lock a folder, which is created; the lock ends with the process, however that ends.

    A POSIX record lock: data workers that are forked do not inherit it, so a training that was
    killed can be started again at once. Where the file system has no locks, none is held.

    Args:
        folder: the work folder of a training.

    Raises:
        ArtifactError: another process holds it.
        WriteError: it cannot be written.
    """
    path = folder / _NAME
    with writing(folder, path):
        folder.mkdir(parents=True, exist_ok=True)
        stream = path.open("a+", encoding="utf-8")
    with stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                stream.seek(0)
                holder = stream.read().strip() or "unknown"
                raise ArtifactError(
                    f"{folder}: another process trains there ({holder}); wait for it, stop it, or "
                    "choose another work folder"
                ) from None
        else:
            with writing(folder, path):
                stream.truncate(0)
                stream.write(f"process {os.getpid()} on {socket.gethostname()}\n")
                stream.flush()
        yield
