"""End a stage when the workflow engine that started it is gone.

A killed engine (``kill -9``, a node that drops its scheduler) leaves its jobs running. Such an
orphan would finish minutes later and replace a newer artefact with one of an older configuration.
The workflow sets ``WSSS_ENGINE_PID`` and ``WSSS_ENGINE_HOST``; a stage that finds that process gone
ends itself. What it had not finished is a temporary file that nothing reads.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
import time

ENGINE_VARIABLE = "WSSS_ENGINE_PID"
HOST_VARIABLE = "WSSS_ENGINE_HOST"
_SECONDS = 1.0


def exit_with_parent() -> None:
    """Watch the engine, if there is one on this machine, from a background thread."""
    name, host = os.environ.get(ENGINE_VARIABLE, ""), os.environ.get(HOST_VARIABLE, "")
    if not name.isdigit():
        return  # run by hand
    engine = int(name)
    if host == this_machine() and not _alive(engine):
        print(
            f"error: the workflow engine (process {engine}) that asked for this is gone; start the "
            "workflow again",
            file=sys.stderr,
        )
        os._exit(1)
    if _is_ancestor(engine):  # else it runs on another node, or a batch system started this
        threading.Thread(target=_watch, args=(engine,), daemon=True).start()


def this_machine() -> str:
    """Where numbers of processes mean the same: the host, and the name space of a container."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{socket.gethostname()} {space}"


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
            with open(f"/proc/{current}/stat") as stream:
                current = int(stream.read().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return False
