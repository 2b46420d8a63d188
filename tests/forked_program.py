"""What a forked program of the tests need not do: prepare its commands, and free every module."""

import atexit
import functools
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any


def prepare(application: Any) -> None:
    """Before a fork: what is the same for every program and takes longer than many of them.

    Args:
        application: the commands, a `typer.Typer`.
    """
    from matplotlib import font_manager
    from typer import main as typer

    from wsss.artifacts.code_digest import code_digest

    typer.get_command = functools.cache(typer.get_command)
    typer.get_command(application)
    font_manager.findfont("DejaVu Sans")
    code_digest(["wsss.data.ingest.stage"])  # the graph of imports


def run_and_end(program: Callable[[], object]) -> None:
    """Run a program and end this process with its exit code.

    Threads are awaited and functions of `atexit` called, as when an interpreter ends. But modules
    are not freed one object after the other, which takes half a second with torch, and torch takes
    none of its operators back. A program that raises another error than SystemExit returns to the
    interpreter with it.
    """
    code: object = 0
    try:
        program()
    except SystemExit as end:
        code = end.code
    if isinstance(code, str):
        print(code, file=sys.stderr)
    for finalizer in weakref.finalize._registry:  # type: ignore[attr-defined]
        if finalizer.peek()[1].__module__ == "torch.library":
            finalizer.atexit = False
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
