"""A stage ends with the engine that started it, even if the engine ends first."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wsss.compute.machine import this_machine

_PROGRAM = (
    "from wsss.pipeline.parent_watch import exit_with_parent; exit_with_parent(); print('runs')"
)


def _run(**variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        cwd=Path(__file__).parents[2],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def _dead() -> str:
    """The number of a process that has ended."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    return str(gone.pid)


def test_an_engine_that_ended_before_the_stage_starts() -> None:
    here = this_machine()
    done = _run(WSSS_ENGINE_PID=_dead(), WSSS_ENGINE_HOST=here)
    assert done.returncode == 1
    assert "is gone; start the workflow again" in done.stderr
    assert "runs" not in done.stdout


@pytest.mark.parametrize(
    "variables",
    [
        {"WSSS_ENGINE_PID": "", "WSSS_ENGINE_HOST": ""},
        {"WSSS_ENGINE_PID": "4194304", "WSSS_ENGINE_HOST": "another machine"},
        {"WSSS_ENGINE_PID": str(os.getpid()), "WSSS_ENGINE_HOST": this_machine()},
    ],
)
def test_a_stage_runs_without_an_engine_and_below_a_living_one(variables: dict[str, str]) -> None:
    assert _run(**variables).stdout == "runs\n"
