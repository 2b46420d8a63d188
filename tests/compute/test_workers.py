"""Workers for machines with and without GPUs, and for jobs of Slurm."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wsss.compute import workers
from wsss.compute.gpus import VISIBLE
from wsss.compute.workers import auto_workers
from wsss.config.load import from_mapping

Machine = Callable[[int, int], None]


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    names = (VISIBLE, "SLURM_JOB_ID", "SLURM_CPUS_PER_TASK", "LOCAL_WORLD_SIZE")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    auto_workers.cache_clear()
    yield
    auto_workers.cache_clear()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Set the numbers of cores and of GPUs."""

    def has(cores: int, gpus: int) -> None:
        auto_workers.cache_clear()
        monkeypatch.setattr(workers, "cores", lambda: cores)
        monkeypatch.setattr(workers, "torch_has_cuda", lambda: True)
        program = tmp_path / "nvidia-smi"
        lines = [f"echo 'GPU {n}: X (UUID: GPU-{n})'" for n in range(gpus)]
        program.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return has


@pytest.mark.parametrize(
    ("cores", "gpus", "expected"),
    [(1, 0, 1), (2, 0, 2), (6, 0, 6), (64, 0, 8), (1, 1, 1), (2, 1, 1), (16, 4, 3), (128, 8, 8)],
)
def test_cores_or_cores_per_gpu_less_one(
    machine: Machine, cores: int, gpus: int, expected: int
) -> None:
    machine(cores, gpus)
    assert auto_workers("auto") == expected
    assert auto_workers("cpu") == min(cores, 8)


def test_a_gpu_that_is_held_leaves_the_number(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(16, 4)
    assert auto_workers("auto") == 3
    monkeypatch.setenv(VISIBLE, "0")  # as `pick_device` does
    assert auto_workers("auto") == 3


def test_slurm_says_its_cpus(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(64, 4)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "24")
    assert auto_workers("auto") == 8  # no job: a login shell may have it
    auto_workers.cache_clear()
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert auto_workers("auto") == 24
    auto_workers.cache_clear()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert auto_workers("auto") == 6  # each of four processes of a training


def test_the_configuration_is_filled_in(machine: Machine) -> None:
    def workers(kind: str = "voc", **compute: object) -> int:
        return from_mapping({"data": {"kind": kind}, "compute": compute}).compute.workers

    machine(5, 0)
    assert workers() == workers(workers="auto") == workers(device="cpu") == 5
    assert workers("demo", workers="auto") == 5
    assert workers("demo") == 1
    machine(16, 4)
    assert workers(device="cpu") == 8
    assert workers(workers=40) == workers("demo", workers=40) == 40
