"""End a stage when the workflow engine that started it is gone.

A killed engine (``kill -9``, a node that drops its scheduler) leaves its jobs running. Such an
orphan would finish minutes later and replace a newer artefact with one of an older configuration.
The workflow sets ``WSSS_ENGINE_PID``; a stage that finds that process gone ends itself. What it had
not finished is a temporary file that nothing reads. On a cluster the engine that counts is the one
that runs inside the job, not the one on the login node, whose process number means nothing here.
A process of several that torchrun launched ends with torchrun as well.
"""

from __future__ import annotations

import os
import threading
import time

ENGINE_VARIABLE = "WSSS_ENGINE_PID"
_LAUNCHER_VARIABLE = "TORCHELASTIC_RUN_ID"  # set by torchrun for the processes that it launches
_SECONDS = 1.0


def exit_with_parent() -> None:
    """Watch the engine, if there is one on this machine, from a background thread."""
    watched = [engine] if (engine := engine_here()) is not None else []
    if _LAUNCHER_VARIABLE in os.environ:
        watched.append(os.getppid())
    for process in watched:
        threading.Thread(target=_watch, args=(process,), daemon=True).start()


def engine_here() -> int | None:
    """The engine that started this process; None: run by hand, or on another node than it."""
    engine = os.environ.get(ENGINE_VARIABLE, "")
    return int(engine) if engine.isdigit() and _is_ancestor(int(engine)) else None


def _watch(engine: int) -> None:
    while os.path.exists(f"/proc/{engine}"):
        time.sleep(_SECONDS)
    os._exit(1)


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
