"""The workflow on a real Slurm of one node, through the shipped profile.

Its jobs fork, as those of other workflow tests do (`jobs.py`): each would start Python three times.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .conftest import copy_project
from .jobs import forking
from .one_node_slurm import Slurm, SlurmUnavailableError, one_node

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

LOCAL = {"all", "demo_data", "score"}
LOCAL |= {"refine_predict_nothing", "predict_nothing"}
LOCAL |= {"table", "class_chart", "loss_curve", "contact_sheet", "efficiency"}
SUBMITTED = {"ingest", "cams", "refine_train", "labels", "refine_predict", "retrain", "predict"}
_SMALL = {"shards": 1, "cams": {"splits": ["train"], "affinity": {"enabled": False}}}
_SMALL |= {"infer": {"scales": [1.0], "crf": False}, "predict": {"scales": [1.0], "crf": False}}
# The node has two cores; the profile's threads would not fit. The plugin looks more and more seldom
# at jobs that do not end, up to every three minutes: here it keeps looking.
_ENGINE = """
import sys
from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor
Executor.next_seconds_between_status_checks = property(lambda self: 0.3, lambda self, value: None)
main(sys.argv[1:])
"""
_PATIENCE = 1200


@dataclass
class Run:
    """A finished run of the workflow."""

    root: Path
    said: str
    code: int
    jobs: dict[str, dict[str, str]]
    """All that Slurm knows of its jobs, by id."""

    def of(self, rule: str) -> list[dict[str, str]]:
        """The Slurm jobs of a rule, in the order of their submission."""
        jobs = [job for job in self.jobs.values() if _rule(job) == rule]
        return sorted(jobs, key=lambda job: int(job["JobId"]))


def _rule(job: dict[str, str]) -> str:
    """The comment of the plugin: rule_cams_wildcards_… or, of a group, rule_labels_…"""
    name = job["Comment"].removeprefix("rule_")
    return "labels" if name.startswith("labels_") else name.split("_wildcards_")[0]


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
    """A run in which a job is cancelled, and another stopped until its time is over."""
    project = copy_project(tmp_path_factory.mktemp("slurm"))
    project.configure(**_SMALL)
    engine = _start(slurm, project.root, "slurm", "--", "results/tiny/tables/table.csv")
    disturbed: set[str] = set()
    deadline = time.monotonic() + _PATIENCE
    while engine.poll() is None and time.monotonic() < deadline:
        for job_id, job in slurm.jobs().items():
            rule = _rule(job)
            if job["JobState"] != "RUNNING" or rule in disturbed:
                continue
            if rule == "cams":
                slurm.run("scancel", job_id)
                disturbed.add(rule)
            elif rule == "refine_predict":
                slurm.run("scancel", "--signal=STOP", "--full", job_id)
                slurm.run("scontrol", "update", f"JobId={job_id}", "EndTime=now")
                disturbed.add(rule)
        time.sleep(1)
    return _over(slurm, project.root, engine)


def _start(slurm: Slurm, root: Path, profile: str, *arguments: str) -> subprocess.Popen[str]:
    environment = forking({k: v for k, v in slurm.environment.items() if k != "WSSS_ENGINE_PID"})
    command = [sys.executable, "-c", _ENGINE, "--profile", f"workflow/profiles/{profile}"]
    quick = ("--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "10")
    with (root / "said.log").open("w") as log:
        return subprocess.Popen(
            [*command, "--configfile", "tiny.yaml", "--max-threads", "2", *quick, *arguments],
            cwd=root,
            env=environment,
            text=True,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _over(slurm: Slurm, root: Path, engine: subprocess.Popen[str]) -> Run:
    try:
        engine.wait(_PATIENCE)
    finally:
        engine.kill()
    return Run(root, (root / "said.log").read_text(), engine.returncode, slurm.jobs())


def test_the_run_ends_in_a_table(disturbed: Run) -> None:
    assert disturbed.code == 0, disturbed.said
    assert (disturbed.root / "results/tiny/tables/table.csv").stat().st_size > 200


def test_every_stage_but_the_local_ones_is_a_slurm_job(disturbed: Run) -> None:
    assert {_rule(job) for job in disturbed.jobs.values()} == SUBMITTED
    submitted = re.findall(r"Job \S+ has been submitted with SLURM jobid (\d+)", disturbed.said)
    assert set(submitted) == set(disturbed.jobs)
    engine_log = min((disturbed.root / ".snakemake/log").glob("*.log")).read_text()
    stats = engine_log.split("Job stats:")[1].split("total")[0]
    rules = set(re.findall(r"^(\w+) +\d+$", stats, re.MULTILINE))
    assert {"refine_apply", "masks"} <= rules  # the group labels
    assert rules - {"refine_apply", "masks"} == (LOCAL & rules) | SUBMITTED - {"labels"}
    assert {"score", "table"} <= rules


def test_a_cancelled_job_is_retried_with_more_memory(disturbed: Run) -> None:
    first, second = disturbed.of("cams")
    assert (first["JobState"], second["JobState"]) == ("CANCELLED", "COMPLETED")
    assert f"SLURM-job '{first['JobId']}' failed, SLURM status is: 'CANCELLED'" in disturbed.said
    assert (first["MinMemoryNode"], second["MinMemoryNode"]) == ("8000M", "16000M")


def test_a_job_over_its_time_is_reported_and_retried_with_more(disturbed: Run) -> None:
    first, second = disturbed.of("refine_predict")
    assert (first["JobState"], second["JobState"]) == ("TIMEOUT", "COMPLETED")
    assert second["TimeLimit"] == "16:00:00"  # the profile's eight hours, twice
    error = disturbed.said.split("Error in rule refine_predict:")[1].split("\n[")[0]
    assert f"SLURM-job '{first['JobId']}' failed, SLURM status is: 'TIMEOUT'" in error
    log = re.findall(r"\S+/slurm_logs/\S+\.log", error)[0]
    assert "DUE TO TIME LIMIT" in Path(log).read_text()
    assert "Logfile results/tiny/logs/refine_predict/" in error  # profiles/default is in force too


def test_an_engine_waits_for_the_jobs_of_a_killed_one(slurm: Slurm, disturbed: Run) -> None:
    options = ("--hold", "--parsable", "--comment=rule_cams_wildcards_x", "--wrap=true")
    elsewhere = slurm.run("sbatch", "--chdir=/", *options)
    job_id = slurm.run("sbatch", f"--chdir={disturbed.root}", *options)
    engine = _start(slurm, disturbed.root, "slurm", "--forcerun", "table")
    run = _over(slurm, disturbed.root, engine)
    slurm.run("scancel", job_id, elsewhere)
    assert run.code != 0
    reason = f"error: Slurm still has jobs of an engine that was started earlier in {run.root}"
    assert run.said.rstrip().splitlines()[-1].startswith(reason)
    assert f"scancel {job_id} " in run.said
    assert "Finished jobid" not in run.said


@pytest.mark.skipif(
    os.environ.get("WSSS_SLURM_GPUS") != "1", reason="takes two minutes: WSSS_SLURM_GPUS=1 runs it"
)
def test_a_training_on_two_gpus_is_launched_once(slurm: Slurm, disturbed: Run) -> None:
    """By torchrun, in two processes that share the batch; the node's GPUs are not real."""
    resources = ("retrain:gpu=2", "retrain:nodes=1", "retrain:mem_mb=8000", "retrain:runtime=60")
    weights = "results/tiny/segmenter/weights.safetensors"
    shutil.rmtree(disturbed.root / "results/tiny/segmenter/work")  # else there is nothing to train
    before = set(slurm.jobs())
    engine = _start(
        slurm, disturbed.root, "slurm-gpu", "--set-resources", *resources,
        "--forcerun", "retrain", "--", weights,
    )  # fmt: skip
    run = _over(slurm, disturbed.root, engine)
    assert run.code == 0, run.said
    (job_id,) = set(run.jobs) - before
    assert _rule(run.jobs[job_id]) == "retrain"
    assert run.jobs[job_id]["TresPerJob"] == "gres:gpu:2"
    log = (run.root / "results/tiny/logs/retrain.log").read_text()
    assert log.count("training the segmenter: 3/3") == 1  # the first process alone speaks
    (config,) = run.root.glob("results/tiny/segmenter/work/*/config.py")
    written = config.read_text()
    assert "launcher = 'pytorch'" in written
    assert "batch_size=1" in written  # of two
