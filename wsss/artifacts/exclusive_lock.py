"""One process at a time in a folder: a training, a writer of a shared cache, a run on photos."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.write_errors import writing

_log = logging.getLogger(__name__)
_NAME = ".lock"
_HELD = frozenset({errno.EACCES, errno.EAGAIN})


@contextmanager
def exclusive_lock(folder: Path, *, wait: bool = False, label: str = "") -> Iterator[None]:
    """Lock a folder, which is created; the lock ends with the process, however that ends.

    A POSIX record lock: data workers that are forked do not inherit it, so a training that was
    killed can be started again at once. Where the file system has no locks, none is held.

    Args:
        folder: the work folder of a training, or a folder that trainings share.
        wait: until no other process holds it.
        label: how the message names the folder; empty: by its path.

    Raises:
        ArtifactError: another process holds it, without ``wait``.
        WriteError: it cannot be written.
    """
    path = folder / _NAME
    with writing(folder, path):
        folder.mkdir(parents=True, exist_ok=True)
        stream = path.open("a+", encoding="utf-8")
    with stream:
        try:
            _lock(label or str(folder), stream, wait)
        except OSError:
            pass  # a file system without locks
        else:
            with writing(folder, path):
                stream.truncate(0)
                stream.write(f"process {os.getpid()} on {socket.gethostname()}\n")
                stream.flush()
        yield


def _lock(label: str, stream: TextIO, wait: bool) -> None:
    try:
        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    except OSError as error:
        if error.errno not in _HELD:
            raise
    stream.seek(0)
    holder = stream.read().strip() or "unknown"
    if not wait:
        raise ArtifactError(
            f"{label}: another process works there ({holder}); wait for it, stop it, or choose "
            "another folder"
        )
    _log.info("%s: waiting for %s, which writes there", label, holder)
    fcntl.lockf(stream, fcntl.LOCK_EX)
