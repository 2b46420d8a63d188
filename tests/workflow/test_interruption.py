"""Stages end with their engine, and open no pixel labels (kills of stages: `tests/faults`)."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import RUN, Project, truth_out_of_reach

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


_STAGE = """
import time
from wsss.pipeline.parent_watch import exit_with_parent
exit_with_parent()
print(1, flush=True)
time.sleep(60)
"""
_ENGINE = f"""
import os, subprocess, sys
os.environ["WSSS_ENGINE_PID"] = str(os.getpid())
stage = subprocess.Popen([sys.executable, "-c", {_STAGE!r}], stdout=subprocess.PIPE)
stage.stdout.readline()
print(stage.pid, flush=True)
stage.wait()
"""


def test_stages_end_with_a_killed_engine(finished: Project, tmp_path: Path) -> None:
    engine = subprocess.Popen(
        [sys.executable, "-c", _ENGINE], cwd=finished.root, text=True, stdout=subprocess.PIPE
    )
    stage = int(engine.stdout.readline())
    engine.send_signal(signal.SIGKILL)
    engine.wait()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and _running(stage):
        time.sleep(0.1)
    assert not _running(stage), "the stage outlived the engine that started it"


def _running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z" and os.path.exists(f"/proc/{pid}")


def test_training_opens_no_pixel_label(finished: Project) -> None:
    """The fixture predicted with the ground truth out of reach, without which scoring fails."""
    assert len(list((finished.results / "predictions/val").glob("*.h5"))) == 2
    with truth_out_of_reach(finished):
        failed = finished.wsss(
            *("score", "masks", f"results/{RUN}/masks/val/1-of-2.h5", "--split", "val"),
            *("--manifest", f"results/{RUN}/manifest", "--out", "never.json"),
            *("--config", "config.yaml", "--config", "tiny.yaml"),
        )
        assert failed.wait() == 1
        assert "SegmentationClass" in failed.stdout.read()
