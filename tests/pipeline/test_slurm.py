"""Slurm: jobs of an earlier engine in the queue, and advice about jobs that Slurm ended."""

import os
from pathlib import Path

import pytest

from wsss.pipeline.slurm import IGNORED, queued_jobs_message, slurm_remedies

_LOG = """
[Sun Nov 22 00:17:12 2026]
Error in rule refine_predict:
    message: SLURM-job '6' failed, SLURM status is: 'TIMEOUT'. Detailed failure reason unavailable
    jobid: 14
Trying to restart job 14.
[Sun Nov 22 00:17:12 2026]
Error in rule refine_predict:
    message: SLURM-job '7' failed, SLURM status is: 'TIMEOUT'. Reason: Step 0: TimeLimit.
[Sun Nov 22 00:18:12 2026]
Error in rule score:
    message: None
    jobid: 4
[Sun Nov 22 00:18:12 2026]
Error in rule retrain:
    message: SLURM-job '9' failed, SLURM status is: 'OUT_OF_MEMORY'. Reason: Unknown.
[Sun Nov 22 00:18:12 2026]
Error in rule cams:
    message: SLURM-job '11' failed, SLURM status is: 'FAILED'.
"""
# As Snakemake 9.27.1 writes it: no state of the job.
_GROUP = """
[Sat Nov 28 19:00:35 2026]
    message: Error in group labels
    log: {log} (check log file(s) for error details)
    jobs:
        rule masks:
            jobid: 0
            log: results/tiny/logs/masks/train.1-of-1.log (check log file(s) for error details)
        rule refine_apply:
            jobid: 2
    [Sat Nov 28 19:00:35 2026]
    Error in rule masks:
        message: None
        jobid: 0
"""


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The output of squeue, one line per job: id|comment|folder."""
    output = tmp_path / "said"
    output.touch()
    program = tmp_path / "bin" / "squeue"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncat {output}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv(IGNORED, raising=False)
    return output


def test_jobs_of_this_folder_are_named(squeue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path("/shared/a|b")
    assert queued_jobs_message(here) == ""
    squeue.write_text(
        f"7|rule_cams_wildcards_demo_train_1-of-2|{here}\n9|rule_retrain|{here}\n"
        f"11|rule_retrain|/shared\n12|my own|{here}\n"
    )
    message = queued_jobs_message(here)
    assert "7 (cams), 9 (retrain)" in message
    assert "scancel 7 9 " in message
    monkeypatch.setenv(IGNORED, "1")
    assert queued_jobs_message(here) == ""


def test_no_answer_gives_no_message(squeue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue.unlink()  # squeue fails
    assert queued_jobs_message(Path("/shared")) == ""
    monkeypatch.setenv("PATH", "/nonexistent")
    assert queued_jobs_message(Path("/shared")) == ""


def test_each_rule_has_a_remedy() -> None:
    remedies = slurm_remedies(_LOG)
    assert [set(rules) for rules, _ in remedies] == [{"refine_predict"}, {"retrain"}]
    first, second = (line for _, line in remedies)  # the stage's log explains FAILED
    assert first.startswith("refine_predict: 2 jobs (TIMEOUT) - reached its time limit; ")
    assert second.startswith("retrain: a job (OUT_OF_MEMORY) - took more memory")
    assert slurm_remedies("Error in rule x:\n    message: None\n") == []
    assert slurm_remedies("") == []


@pytest.mark.parametrize(
    ("written", "state"),
    [
        ("*** JOB 3 ON vm CANCELLED AT 2026-11-28T19:00:34 DUE TO TIME LIMIT ***", "TIMEOUT"),
        ("*** JOB 3 ON vm CANCELLED AT 2026-11-28T18:58:01 ***", "CANCELLED"),
        ("Detected 1 oom_kill event in StepId=3.batch.", "OUT_OF_MEMORY"),
        ("*** JOB 3 ON vm CANCELLED AT 2026-11-28T18:58:01 DUE TO PREEMPTION ***", "PREEMPTED"),
    ],
)
def test_the_log_of_a_group_says_how_it_ended(tmp_path: Path, written: str, state: str) -> None:
    log = tmp_path / "3.log"
    log.write_text(f"slurmstepd-vm: error: {written}\n")
    ((rules, line),) = slurm_remedies(_GROUP.format(log=log))
    assert rules == {"masks", "refine_apply"}
    assert line.startswith(f"masks + refine_apply: a job ({state}) - ")


def test_a_group_without_log_has_no_remedy(tmp_path: Path) -> None:
    assert slurm_remedies(_GROUP.format(log=tmp_path / "none")) == []
