"""Slurm: jobs of an earlier engine in the queue, and advice about jobs that Slurm ended."""

import os
from pathlib import Path

import pytest

from wsss.pipeline.slurm import IGNORED, explain_failures, explain_logs, queued_jobs_message

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
Error in group labels:
    message: SLURM-job '10' failed, SLURM status is: 'CANCELLED'.
[Sun Nov 22 00:18:12 2026]
Error in rule cams:
    message: SLURM-job '11' failed, SLURM status is: 'FAILED'.
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


def test_each_rule_has_a_remedy(tmp_path: Path) -> None:
    lines = explain_failures(_LOG).splitlines()
    assert len(lines) == 3  # the rule's log explains FAILED
    assert lines[0].startswith("refine_predict: 2 jobs (TIMEOUT) - reached its time limit; ")
    assert "--set-resources refine_predict:runtime=MINUTES" in lines[0]
    assert "retrain: a job (OUT_OF_MEMORY)" in lines[1]
    assert "labels: a job (CANCELLED)" in lines[2]
    log = tmp_path / "a.log"
    log.write_text(_LOG)
    assert explain_logs([str(log)]).splitlines() == lines


def test_other_failures_give_no_advice(tmp_path: Path) -> None:
    assert explain_failures("Error in rule x:\n    message: None\n") == ""
    assert explain_logs([]) == ""
    assert explain_logs([str(tmp_path / "none")]) == ""
