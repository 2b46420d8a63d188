"""How the workflow counts the GPUs of one machine and hands them to its jobs."""

import os
import re
from pathlib import Path

import pytest

from .conftest import Project

pytestmark = pytest.mark.workflow

_TWO = "#!/bin/sh\necho 'GPU 0: X (UUID: GPU-a)'\necho 'GPU 1: X (UUID: GPU-b)'\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs, by a fake nvidia-smi."""
    program = tmp_path / "nvidia-smi"
    program.write_text(_TWO)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_training_gets_as_many_processes_as_gpus(finished: Project, machine: None) -> None:
    """One by default, and never more than the machine has."""
    weights = "results/tiny/segmenter/weights.safetensors"
    for devices, processes in ((None, 1), (7, 2)):
        more = () if devices is None else ("--set-resources", f"retrain:gpu={devices}")
        dry = ("--dry-run", "--printshellcmds", *more)
        shown = finished.snakemake(*dry, "--forcerun", "retrain", "--", weights).stdout
        assert re.findall(r"wsss launch --processes (\d+) retrain", shown) == [str(processes)]


def test_another_number_of_gpus_reruns_nothing(finished: Project, machine: None) -> None:
    assert not finished.would_run("--set-resources", "retrain:gpu=2")


def test_the_cpu_claims_no_gpu(finished: Project, machine: None) -> None:
    finished.configure(compute={"device": "cpu"})
    try:
        dry = ("--dry-run", "--printshellcmds", "--forcerun", "retrain")
        shown = finished.snakemake(*dry, "--", "results/tiny/segmenter/weights.safetensors").stdout
    finally:
        finished.configure()
    assert "wsss launch --processes 0 retrain" in shown
