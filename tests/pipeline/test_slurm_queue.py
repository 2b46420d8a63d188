"""An engine asks Slurm whether an earlier one left jobs for its folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wsss.pipeline.slurm import IGNORED, queued_jobs_message


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What squeue says, one job a line: number|comment|folder."""
    said = tmp_path / "said"
    said.touch()
    program = tmp_path / "bin" / "squeue"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncat {said}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv(IGNORED, raising=False)
    return said


def test_jobs_of_this_folder_are_named(squeue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path("/shared/a|b")
    assert queued_jobs_message(here) == ""
    squeue.write_text(
        f"7|rule_cams_wildcards_demo_train_1-of-2|{here}\n9|rule_retrain|{here}\n"
        f"11|rule_retrain|/shared\n12|my own|{here}\n"
    )
    said = queued_jobs_message(here)
    assert "7 (cams), 9 (retrain)" in said
    assert "scancel 7 9 " in said
    monkeypatch.setenv(IGNORED, "1")
    assert queued_jobs_message(here) == ""


def test_without_an_answer_nothing_is_said(squeue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue.unlink()  # squeue fails
    assert queued_jobs_message(Path("/shared")) == ""
    monkeypatch.setenv("PATH", "/nonexistent")
    assert queued_jobs_message(Path("/shared")) == ""
