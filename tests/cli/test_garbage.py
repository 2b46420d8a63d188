"""Reference cycles are collected while a stage works, not while it is imported or ends."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wsss._compat.paused_collection import paused_collection
from wsss.cli.options import stage_values
from wsss.config.load import from_mapping
from wsss.pipeline.job import JOB_VARIABLE, job_of, named_by_digest

# Functions that are registered first are called last.
_PROGRAM = """
import atexit, gc, json, sys
states = {}
atexit.register(lambda: print(json.dumps(states | {"frozen": gc.get_freeze_count() > 0})))
import wsss.data.ingest.stage as stage
from wsss.cli import options
values = options.stage_values
def note(*arguments, **names):
    states["imported"] = gc.isenabled()
    return values(*arguments, **names)
def ingest(*arguments, **names):
    states["works"] = gc.isenabled()
from wsss.cli.commands import stages
stages.stage_values, stage.ingest = note, ingest
from wsss.__main__ import main
sys.argv = ["wsss", "ingest", "--out", "out"]
main()
"""


@pytest.mark.slow
def test_of_a_job(tmp_path: Path) -> None:
    text = job_of("ingest", from_mapping({})).text()
    path = named_by_digest(tmp_path, "job", text)
    path.write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {JOB_VARIABLE: str(path)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"imported": False, "works": True, "frozen": True}


def test_values_of_a_stage_end_the_pause(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("{}")
    with paused_collection():
        assert not gc.isenabled()
        stage_values("ingest", [tmp_path / "c.yaml"])
        assert gc.isenabled()


def test_a_pause_inside_another_does_not_end_it() -> None:
    with paused_collection():
        with paused_collection():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
