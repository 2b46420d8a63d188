"""Python looks for garbage as usual while a stage works, seldom while it is imported."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wsss._compat.paused_collection import collect_rarely, paused_collection
from wsss.cli.options import stage_values
from wsss.config.load import from_mapping
from wsss.pipeline.job import JOB_VARIABLE, job_of, named_by_digest

# Functions that are registered first are called last.
_PROGRAM = """
import atexit, gc, json, sys
states = {}
states["usual"] = gc.get_threshold()[0]
atexit.register(lambda: print(json.dumps(states | {"frozen": gc.get_freeze_count() > 0})))
import wsss.data.ingest.stage as stage
from wsss.cli import options
values = options.stage_values
def note(*arguments, **names):
    states["imported"] = gc.get_threshold()[0]
    return values(*arguments, **names)
def ingest(*arguments, **names):
    states["works"] = gc.get_threshold()[0]
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
    states = json.loads(done.stdout)
    assert states["frozen"]
    assert states["works"] == states["usual"] < states["imported"]


def test_values_of_a_stage_end_it(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("{}")
    usual = gc.get_threshold()
    collect_rarely()
    assert gc.isenabled()  # a command that asks for no values must not keep all its garbage
    assert gc.get_threshold() > usual
    stage_values("ingest", [tmp_path / "c.yaml"])
    assert gc.get_threshold() == usual


def test_a_pause_inside_another_does_not_end_it() -> None:
    with paused_collection():
        with paused_collection():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
