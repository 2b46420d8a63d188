"""Run the command line, or a reader, in a child that may not grow, hang or die.

A child is forked from the test process, so that nothing is imported again. It has limits on memory
growth and time, and its crash does not end the tests.
"""

import gc
import importlib
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer.main

from wsss.artifacts.code_digest import code_digest
from wsss.artifacts.provenance import package_versions
from wsss.errors import WsssError

GROWTH = 2**30  # bytes
SECONDS = 60.0
_STAGES = {
    "ingest": "wsss.data.ingest.stage",
    "cams": "wsss.cams.stage",
    "refine-import": "wsss.refine.released.importer",
    "masks": "wsss.masks.stage",
    "score": "wsss.score.stage",
}


@dataclass(frozen=True)
class Outcome:
    """How a child ended."""

    code: int
    """Exit code; negative: the signal that killed it."""
    text: str
    """What it wrote."""

    def refused(self, *pieces: str) -> None:
        """Assert that it ended with one message that contains these pieces, and no traceback."""
        assert self.code == 1, f"ended with {self.code}:\n{self.text}"
        assert "Traceback" not in self.text, self.text
        for piece in ("error:", *pieces):
            assert piece in self.text, f"{piece!r} is not in:\n{self.text}"

    def done(self) -> None:
        """Assert that it succeeded."""
        assert self.code == 0, f"ended with {self.code}:\n{self.text}"


def wsss(*arguments: str | Path) -> Outcome:
    """Run a command as a user would."""
    program = importlib.import_module("wsss.__main__")
    typer.main.get_command(program.app)
    if stage := _STAGES.get(str(arguments[0])):
        importlib.import_module(stage)  # once, and not in every child
        code_digest([stage])
        package_versions()

    def command() -> None:
        sys.argv = ["wsss", *map(str, arguments)]
        program.main()

    return in_child(command)


def message_in_child(task: Callable[[], object]) -> str:
    """The message of the `WsssError` that ends a function in a child; empty if there is none."""

    def read() -> None:
        try:
            task()
        except WsssError as error:
            print(error)

    outcome = in_child(read)
    outcome.done()
    return outcome.text


def in_child(task: Callable[[], None], *, seconds: float = SECONDS) -> Outcome:
    """Run a function in a child; its exception becomes a traceback and code 70."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _become(writer)
        os._exit(_code_of(task))
    os.close(writer)
    text, hung = _drain(reader, time.monotonic() + seconds)
    if hung:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(reader)
    code = os.waitstatus_to_exitcode(status)
    if hung:
        pytest.fail(f"hung for {seconds} s:\n{text}")
    return Outcome(code, text)


def _become(writer: int) -> None:
    gc.freeze()  # the objects of the tests are no garbage, and looking at them copies their pages
    os.dup2(writer, 1)
    os.dup2(writer, 2)
    # pytest's capture replaced the streams; these are of the pipe
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    with open("/proc/self/statm") as stream:
        size = int(stream.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + GROWTH, size + GROWTH))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if "torch" in sys.modules:  # its thread pool does not outlive a fork
        sys.modules["torch"].set_num_threads(1)


def _code_of(task: Callable[[], None]) -> int:
    try:
        task()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 70
    else:
        code = 0
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _drain(reader: int, end: float) -> tuple[str, bool]:
    chunks = []
    while (seconds := end - time.monotonic()) > 0:
        ready, _, _ = select.select([reader], [], [], seconds)
        if not ready:
            break
        chunk = os.read(reader, 2**16)
        if not chunk:
            return b"".join(chunks).decode(errors="backslashreplace"), False
        chunks.append(chunk)
    return b"".join(chunks).decode(errors="backslashreplace"), True
