"""How a message of the command line ends, and Ctrl-C."""

import signal
import subprocess
import sys

import pytest
import torch
import typer

from wsss.cli import app
from wsss.cli.app import run
from wsss.compute.device import pick_device
from wsss.errors import WsssError
from wsss.pipeline.job import JOB_VARIABLE
from wsss.pipeline.stage_log import failure_message


def test_further_lines_of_a_message_are_indented(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workflow takes the message from a log by that."""
    failing = typer.Typer()

    @failing.command()
    def fail() -> None:
        raise WsssError("one\ntwo\n  three")

    monkeypatch.setattr("sys.argv", ["wsss"])
    with pytest.raises(SystemExit):
        run(failing)
    assert capsys.readouterr().err == "error: one\n  two\n  three\n"


def test_where_an_error_of_torch_comes_from(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log of a stage has the traceback, a terminal the variable that shows it."""
    failing = typer.Typer()

    @failing.command()
    def fail(device: str = "cpu") -> None:
        pick_device(device)
        torch.ones(64) + torch.ones(32)

    def error(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["wsss", *arguments])
        with pytest.raises(SystemExit):
            run(failing)
        return capsys.readouterr().err

    (line,) = error().splitlines()
    assert line.startswith("error: The size of tensor a (64) must match")
    assert line.endswith("(WSSS_TRACEBACK=1 shows where)")
    assert "WSSS_TRACEBACK" not in error("--device", "tpu")  # the message says what to do
    monkeypatch.setenv(JOB_VARIABLE, "job.json")
    monkeypatch.setattr(app, "current_job", lambda: None)
    log = error()
    assert f'File "{__file__}"' in log
    assert failure_message(log) == log.splitlines()[-1]
    assert failure_message(log).startswith("error: The size of tensor a (64) must match")


def test_a_gpu_without_memory_is_answered_with_keys(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = typer.Typer()

    @failing.command()
    def fail() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB. GPU 0 …")

    monkeypatch.setattr("sys.argv", ["wsss"])
    with pytest.raises(SystemExit):
        run(failing)
    error = capsys.readouterr().err
    assert error.startswith("error: out of memory on the GPU: Tried to allocate 3.00 GiB; lower")
    assert "predict.window" in error


_INTERRUPTED = """
import os, signal, sys
class Finder:
    def find_spec(name, *_):
        if name == "wsss.cli.app":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder)
import wsss.__main__
"""


def test_ctrl_c_while_modules_are_imported() -> None:
    done = subprocess.run([sys.executable, "-c", _INTERRUPTED], capture_output=True, check=False)
    assert done.returncode == -signal.SIGINT
    assert done.stderr == b""
