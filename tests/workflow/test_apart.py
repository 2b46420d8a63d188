"""Predictions of a run with GPUs: two jobs, whose label maps are those of one job without GPUs.

The GPUs are planned, not there: the engine plans as for them, and the networks run on the CPU.
"""

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from wsss.compute.planned_gpus import PLANNED_GPUS

from .conftest import RUN, Project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

_SHARDS = [
    f"results/{RUN}/{product}/val/{part}-of-2.h5"
    for product in ("refiner_predictions", "predictions")
    for part in (1, 2)
]
_BOTH = {"refine_predict": 2, "refine_predict_crf": 2, "predict": 2, "predict_crf": 2}


@pytest.fixture(scope="module")
def project(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the finished project."""
    root = tmp_path_factory.mktemp("apart") / "project"
    return Project(shutil.copytree(finished.root, root, symlinks=True))


def _forget_predictions(project: Project) -> None:
    """Delete the shards, and what a rerun would take over from."""
    for shard in _SHARDS:
        (project.root / shard).unlink()
        shutil.rmtree((project.root / shard).parent / ".cache", ignore_errors=True)


def test_both_ways_write_the_same_bytes(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what one way made is up to date for the other one.

    Without GPUs the finished project predicted.
    """
    before = {shard: (project.root / shard).read_bytes() for shard in _SHARDS}
    monkeypatch.setenv(PLANNED_GPUS, "1")
    assert not project.would_run()
    _forget_predictions(project)
    assert project.runs(*_SHARDS) == _BOTH
    assert {shard: (project.root / shard).read_bytes() for shard in _SHARDS} == before
    assert not list(project.results.glob("**/*.planes"))
    assert not project.would_run(*_SHARDS)
    monkeypatch.setenv(PLANNED_GPUS, "0")
    assert not project.would_run(*_SHARDS)


def test_a_run_with_gpus_goes_on_from_one_without(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first job did nothing, and left an empty file when it was interrupted."""
    monkeypatch.setenv(PLANNED_GPUS, "0")
    target = _SHARDS[0]
    before = (project.root / target).read_bytes()
    _forget_predictions(project)
    planes = str(Path(target).with_suffix(".planes"))
    project.snakemake("--notemp", "--", planes)
    assert (project.root / planes).stat().st_size == 0
    monkeypatch.setenv(PLANNED_GPUS, "1")
    both = {"refine_predict": 1, "refine_predict_crf": 1}
    assert project.runs(target) == both
    assert (project.root / target).read_bytes() == before


def test_the_crf_computes_on_cpus(finished: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the device of the network. `test_profiles.py` says who gets a GPU on a cluster."""
    monkeypatch.setenv(PLANNED_GPUS, "1")
    dry = ("--dry-run", "--printshellcmds", "--forcerun", "refine_predict", "predict", "--")
    shown = finished.snakemake(*dry, *_SHARDS).stdout
    for command in ("refine-predict", "retrain-predict"):
        lines = [line for line in shown.splitlines() if f"python -m wsss {command}" in line]
        devices = Counter(
            ("--planes " in line, "--planes-to " in line, re.findall(r"--device (\w+)", line)[0])
            for line in lines
        )
        assert devices == {(True, False, "cpu"): 2, (False, True, "auto"): 2}
