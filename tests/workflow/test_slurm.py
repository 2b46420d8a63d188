"""The workflow on a real Slurm of one node, through the shipped profile."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .conftest import copy_project
from .one_node_slurm import Slurm, SlurmUnavailableError, one_node

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

LOCAL = {"all", "demo_data", "score_blob", "score_cams", "score_masks", "score_predictions"}
LOCAL |= {"table", "class_chart", "loss_curve", "contact_sheet", "efficiency"}
SUBMITTED = {"ingest", "cams", "refine_train", "refine_predict", "group_labels", "retrain"}
SUBMITTED |= {"predict"}
_SMALL = {"shards": 1, "cams": {"splits": ["train"], "affinity": {"enabled": False}}}
_SMALL |= {"infer": {"scales": [1.0], "crf": False}, "predict": {"scales": [1.0], "crf": False}}
# The node has two cores; the profile's threads would not fit. The plugin looks more and more seldom
# at jobs that do not end, up to every three minutes: here it keeps looking.
_ENGINE = """
import sys
from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor
Executor.next_seconds_between_status_checks = property(lambda self: 1, lambda self, value: None)
main(sys.argv[1:])
"""
_PATIENCE = 400


@dataclass
class Run:
    """A run of the workflow that is over."""

    root: Path
    said: str
    code: int
    jobs: dict[str, dict[str, str]]
    """All that Slurm knows of its jobs, by id."""

    def of(self, rule: str) -> list[dict[str, str]]:
        """The Slurm jobs of a rule, in the order of their submission."""
        found = [job for job in self.jobs.values() if _rule(job) == rule]
        return sorted(found, key=lambda job: int(job["JobId"]))


def _rule(job: dict[str, str]) -> str:
    """What the plugin says in the comment: rule_cams_wildcards_…"""
    return job["Comment"].removeprefix("rule_").split("_wildcards_")[0]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    with tempfile.TemporaryDirectory(prefix="wsss-") as folder:
        try:
            with one_node(Path(folder), cpus=4, gpus=2) as running:
                yield running
        except SlurmUnavailableError as error:
            pytest.skip(f"no Slurm here: {error}")


@pytest.fixture(scope="module")
def disturbed(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A whole run, in which a job of `cams` is cancelled and one of `refine_predict` is stopped,
    so that it comes to the end of its time."""
    project = copy_project(tmp_path_factory.mktemp("slurm"))
    project.configure(**_SMALL)
    engine = _start(slurm, project.root, "slurm")
    done: set[str] = set()
    deadline = time.monotonic() + _PATIENCE
    while engine.poll() is None and time.monotonic() < deadline:
        for number, job in slurm.jobs().items():
            rule = _rule(job)
            if job["JobState"] != "RUNNING" or rule in done:
                continue
            if rule == "cams":
                slurm.run("scancel", number)
                done.add(rule)
            elif rule == "refine_predict":
                slurm.run("scancel", "--signal=STOP", "--full", number)
                slurm.run("scontrol", "update", f"JobId={number}", "EndTime=now")
                done.add(rule)
        time.sleep(0.3)
    engine.kill()
    said, _ = engine.communicate()
    return Run(project.root, said, engine.returncode, slurm.jobs())


def _start(slurm: Slurm, root: Path, profile: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {
        k: v for k, v in slurm.environment.items() if k not in ("PYTHONPATH", "WSSS_ENGINE_PID")
    }
    command = [sys.executable, "-c", _ENGINE, "--profile", f"workflow/profiles/{profile}"]
    quick = ("--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "10")
    return subprocess.Popen(
        [*command, "--configfile", "tiny.yaml", "--max-threads", "2", *quick, *arguments],
        cwd=root,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def test_the_run_ends_in_a_table(disturbed: Run) -> None:
    assert disturbed.code == 0, disturbed.said
    assert (disturbed.root / "results/tiny/tables/table.csv").stat().st_size > 200
