"""End a stage when the workflow engine that started it is gone.

A killed engine (``kill -9``, a node that drops its scheduler) leaves its jobs running. Such an
orphan would finish minutes later and replace a newer artifact with one of an older configuration.
The workflow sets ``WSSS_ENGINE_PID`` and ``WSSS_ENGINE_HOST``; a stage that finds that process gone
ends itself. Its unfinished output is a temporary file that nothing reads. On a cluster the engine
inside the job counts, not the engine on the login node. Processes that torchrun launched end with
torchrun as well.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time

from wsss.compute.machine import this_machine

ENGINE_VARIABLE = "WSSS_ENGINE_PID"
HOST_VARIABLE = "WSSS_ENGINE_HOST"
_LAUNCHER_VARIABLE = "TORCHELASTIC_RUN_ID"  # set by torchrun for the processes that it launches
_SECONDS = 1.0


def exit_with_parent() -> None:
    """Watch the engine, if there is one on this machine, from a background thread."""
    engine = _engine()
    if engine is not None and HOST_VARIABLE in os.environ and not _alive(engine):
        print(
            f"error: the workflow engine (process {engine}) that asked for this is gone; start the "
            "workflow again",
            file=sys.stderr,
        )
        os._exit(1)
    watched = [engine] if engine is not None and _is_ancestor(engine) else []
    if _LAUNCHER_VARIABLE in os.environ:
        watched.append(os.getppid())
    for process in watched:
        threading.Thread(target=_watch, args=(process,), daemon=True).start()


def engine_is_elsewhere() -> bool:
    """Whether no engine of this machine started this process.

    True by hand, on another node than the engine, and where a batch system of the same machine
    started this. False where the engine that started it is gone: its work must not run.
    """
    engine = _engine()
    return engine is None or (_alive(engine) and not _is_ancestor(engine))


def _engine() -> int | None:
    """The process number of the engine, unless it is one of another machine."""
    name, host = os.environ.get(ENGINE_VARIABLE, ""), os.environ.get(HOST_VARIABLE)
    return int(name) if name.isdigit() and host in (None, this_machine()) else None


def _watch(engine: int) -> None:
    try:
        process = os.pidfd_open(engine)
    except (AttributeError, OSError):  # no Linux, an old one, or the engine is gone
        while _alive(engine):
            time.sleep(_SECONDS)
        os._exit(1)
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.poll()  # returns at the moment at which the engine ends
    os._exit(1)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _is_ancestor(pid: int) -> bool:
    current = os.getppid()
    while current > 1:
        if current == pid:
            return True
        try:
            with open(f"/proc/{current}/stat", encoding="utf-8") as stream:
                current = int(stream.read().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return False
