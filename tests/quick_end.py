"""The end of a forked program, without the interpreter's shutdown.

Shutdown frees every module, one object after the other. In a fork that is half a second for torch,
in which nothing is written.
"""

import atexit
import os
import sys
import threading
from collections.abc import Callable


def run_and_end(program: Callable[[], object]) -> None:
    """Run a program and end this process with its exit code.

    What runs when an interpreter ends is run: threads are awaited, functions of `atexit` called. A
    program that raises another error than SystemExit returns to the interpreter with it.
    """
    code: object = 0
    try:
        program()
    except SystemExit as end:
        code = end.code
    if isinstance(code, str):
        print(code, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
