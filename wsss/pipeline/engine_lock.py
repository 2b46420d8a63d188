"""Locks that killed engines leave behind.

Snakemake locks a folder by files, which stay when the engine is killed; then no other engine
starts. So each engine also holds a lock of the operating system, which ends with its process. Where
no engine holds one, the files are of a dead engine.
"""

from __future__ import annotations

import errno
import fcntl
from contextlib import suppress
from pathlib import Path
from typing import IO

from wsss.compute.machine import this_machine

_ENGINES = Path(".snakemake", "wsss-engines")
_HELD: list[IO[str]] = []
"""Open as long as the engine runs: closing a file ends its lock."""


def remove_dead_locks(folder: Path) -> bool:
    """Register this engine in a folder, and remove Snakemake's locks if all others are dead.

    Engines of other machines cannot be seen on every file system: after one of them, the locks
    stay. They stay as well where the file system has no locks.

    Returns:
        Whether locks were removed.
    """
    here = folder / ".snakemake"
    try:
        here.mkdir(exist_ok=True)
        locks = list(here.glob("locks/*.lock"))
        stream = (folder / _ENGINES).open("a+", encoding="utf-8")
        _HELD.append(stream)
        alone = _lock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        stream.seek(0)
        dead = alone and set(stream.read().splitlines()) == {this_machine()}
        for lock in locks if dead else ():
            lock.unlink(missing_ok=True)
        if dead or (alone and not locks):
            stream.truncate(0)
        stream.write(f"{this_machine()}\n")
        stream.flush()
        _lock(stream, fcntl.LOCK_SH)
    except OSError:  # a folder that cannot be written: the first job says so
        return False
    return dead and bool(locks)


def engine_runs(folder: Path) -> bool:
    """Whether an engine is registered in a folder and alive, as far as its file system tells."""
    with suppress(OSError), (folder / _ENGINES).open("r+", encoding="utf-8") as stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in (errno.EACCES, errno.EAGAIN)
    return False  # none is registered, or another user's file says so


def engines_died(folder: Path) -> bool:
    """Whether engines ran in a folder, all of them on this machine, and none is alive."""
    with suppress(OSError), (folder / _ENGINES).open("r+", encoding="utf-8") as stream:
        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return set(stream.read().splitlines()) == {this_machine()}
    return False


def _lock(stream: IO[str], kind: int) -> bool:
    try:
        fcntl.lockf(stream, kind)
    except OSError:  # another engine holds it, or there are no locks here
        return False
    return True
