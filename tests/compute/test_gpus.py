"""Jobs on one machine take turns on its GPUs; the GPUs are those of a fake nvidia-smi."""

import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from wsss.cli.app import app
from wsss.cli.commands import launch
from wsss.compute import device as devices
from wsss.compute import gpus
from wsss.compute.gpus import HELD, SHARED, VISIBLE, Gpu, claim_gpus, visible_gpus

_TWO = "GPU 0: X (UUID: GPU-aaaa-1)\nGPU 1: X (UUID: GPU-bbbb-2)\n"
_SPLIT = (
    "GPU 0: X (UUID: GPU-aaaa-1)\n  MIG 1g.18gb  Device  0: (UUID: MIG-cccc-1)\n"
    "  MIG 1g.18gb  Device  1: (UUID: MIG-dddd-2)\nGPU 1: X (UUID: GPU-bbbb-2)\n"
)
_PATIENCE = 60
Listed, StartJob = Callable[[str], None], Callable[..., subprocess.Popen[str]]
# Claims GPUs, prints which, and runs until its standard input ends.
_JOB = """
import logging, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])  # the module alone: it needs no other, and the package is slow
import gpus
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
gpus._SECONDS = 0.05
got = gpus.claim_gpus(gpus.visible_gpus(), int(sys.argv[2]), Path(sys.argv[1]))
print("got", *(gpu.key for gpu in got), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    order = "CUDA_DEVICE_ORDER"
    for name in (VISIBLE, HELD, SHARED, order, "SLURM_JOB_ID", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(gpus, "_FOLDER", tmp_path / "locks")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(devices, "torch_has_cuda", lambda: True)
    monkeypatch.setattr(devices, "_unusable", [])
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "X")
    yield
    for lock in gpus._locks:
        os.close(lock)
    gpus._locks.clear()


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Set the output of nvidia-smi."""

    def say(text: str) -> None:
        (tmp_path / "listed").write_text(text)
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\ncat {tmp_path}/listed\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")

    return say


@pytest.fixture
def job(tmp_path: Path) -> Iterator[StartJob]:
    """Start a job that claims GPUs."""
    started = []

    def start(count: int = 1, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", _JOB, str(tmp_path / "locks"), str(count)]
        command.append(str(Path(gpus.__file__).parent))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        started.append(subprocess.Popen(command, env=os.environ | environment, text=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def _says(process: subprocess.Popen[str]) -> str:
    return process.stdout.readline().strip()


def test_gpus_by_uuid(listed: Listed, monkeypatch: pytest.MonkeyPatch) -> None:
    assert visible_gpus() == []  # no nvidia-smi
    listed(_TWO)
    assert [gpu.key for gpu in visible_gpus()] == ["GPU-aaaa-1", "GPU-bbbb-2"]
    monkeypatch.setenv(VISIBLE, "1")
    assert visible_gpus() == [Gpu("1", "GPU-bbbb-2")]
    monkeypatch.setenv(VISIBLE, "GPU-bb,0")
    assert [gpu.key for gpu in visible_gpus()] == ["GPU-bbbb-2", "GPU-aaaa-1"]
    for none in ("", "-1"):
        monkeypatch.setenv(VISIBLE, none)
        assert visible_gpus() == []
    monkeypatch.delenv(VISIBLE)
    listed(_SPLIT)
    assert [gpu.key for gpu in visible_gpus()] == ["MIG-cccc-1", "MIG-dddd-2", "GPU-bbbb-2"]


def test_two_jobs_get_two_gpus_and_the_third_waits(listed: Listed, job: StartJob) -> None:
    listed(_TWO)
    first, second = job(), job()
    assert {_says(first), _says(second)} == {"got GPU-aaaa-1", "got GPU-bbbb-2"}
    third = job()
    assert _says(third).startswith("waiting for 1 of 2 GPUs; last taken by the processes")
    first.send_signal(signal.SIGKILL)  # however a job ends, its GPU is free again
    assert _says(third).startswith("got GPU-")


def test_one_job_of_two_gpus_and_one_of_one_do_not_wait_for_each_other(
    listed: Listed, job: StartJob
) -> None:
    listed(_TWO)
    first = job()
    assert _says(first) == "got GPU-aaaa-1"
    both = job(2)
    assert _says(both).startswith("waiting for 2 of 2 GPUs")
    other = job()
    output = _says(other)  # a job that cannot start does not hold the free GPU
    if output.startswith("waiting"):  # looked just while the other one tried
        output = _says(other)
    assert output == "got GPU-bbbb-2"
    for process in (first, other):
        process.kill()
    assert _says(both) == "got GPU-aaaa-1 GPU-bbbb-2"


@pytest.mark.slow
def test_many_jobs_never_share(listed: Listed, job: StartJob) -> None:
    """Six jobs, started at once, two at a time on two GPUs."""
    listed(_TWO)
    waiting = [job() for _ in range(6)]
    for process in waiting:
        os.set_blocking(process.stdout.fileno(), False)
    deadline = time.monotonic() + _PATIENCE
    for _ in range(3):
        holders: dict[str, subprocess.Popen[str]] = {}
        settled = 0
        while settled < 5:  # looks at which a third could have come
            assert time.monotonic() < deadline
            for process in list(waiting):
                for line in iter(process.stdout.readline, ""):
                    if line.startswith("got"):
                        assert line.split()[1] not in holders, "two jobs hold one GPU"
                        holders[line.split()[1]] = process
                        waiting.remove(process)
            settled += len(holders) == 2
            time.sleep(0.05)
        assert set(holders) == {"GPU-aaaa-1", "GPU-bbbb-2"}
        for process in holders.values():
            process.kill()
            process.wait()
    assert not waiting


def test_slurm_separates_its_jobs_and_we_their_processes(listed: Listed, job: StartJob) -> None:
    """Two Slurm jobs may each see a different GPU as number 0, or share one."""
    listed("GPU 0: X (UUID: GPU-aaaa-1)\n")
    first, other = job(SLURM_JOB_ID="7"), job(SLURM_JOB_ID="8")
    assert _says(first) == _says(other) == "got GPU-aaaa-1"
    assert _says(job(SLURM_JOB_ID="7")).startswith("waiting for 1 of 1 GPUs")


def test_too_many_gpus_and_sharing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = [Gpu("0", "a"), Gpu("1", "b")]
    with pytest.raises(ValueError, match="3 GPUs were asked for, but 2 can be seen here"):
        claim_gpus(two, 3, tmp_path)
    assert claim_gpus(two, 2, tmp_path) == two
    monkeypatch.setenv(SHARED, "1")
    assert claim_gpus(two, 1, tmp_path) == two[:1]


def test_a_device_is_claimed_before_cuda_looks(
    listed: Listed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: HELD in os.environ)
    assert devices.pick_device("cpu") == torch.device("cpu")
    assert HELD not in os.environ
    listed(_TWO)
    held = claim_gpus(visible_gpus(), 1, tmp_path / "locks")  # another job's, say
    assert [gpu.key for gpu in held] == ["GPU-aaaa-1"]
    assert devices.pick_device("auto") == torch.device("cuda")
    assert os.environ[VISIBLE] == "GPU-bbbb-2"
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"  # GPUs have the numbers of nvidia-smi
    assert devices.pick_device("auto") == torch.device("cuda")  # its own by now
    monkeypatch.delenv(HELD)
    with pytest.raises(ValueError, match=r"GPU 5 was asked for \(0-based\), but 1 can be seen"):
        devices.pick_device("cuda:5")


def test_a_device_that_is_not_there_is_named(
    listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    listed("")
    assert devices.pick_device("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:1"):
        with pytest.raises(ValueError, match=f"no GPU: compute.device is {name}, but this machine"):
            devices.pick_device(name)
    for name in ("gpu", "mps", "meta", "cpu:0", "CUDA"):
        with pytest.raises(ValueError, match=f"device '{name}': expected auto, cpu, cuda"):
            devices.pick_device(name)


def test_a_torch_for_the_cpu_alone_has_no_gpu(
    listed: Listed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "torch_has_cuda", lambda: False)
    listed(_TWO)
    assert devices.pick_device("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:1"):
        with pytest.raises(ValueError, match=r"no GPU: this torch has no CUDA; set comp"):
            devices.pick_device(name)
    assert not (tmp_path / "locks").exists()  # another job's GPU is not waited for


def test_without_gpus_from_slurm_none_is_claimed(
    listed: Listed,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    listed(_TWO)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert devices.pick_device("auto") == torch.device("cpu")
    assert "Slurm lent none to this job" in caplog.text
    monkeypatch.setenv(VISIBLE, "1")
    assert devices.pick_device("auto") == torch.device("cuda")
    assert (tmp_path / "locks" / "GPU-bbbb-2.slurm-7").exists()


def test_each_of_several_processes_has_one_gpu(
    listed: Listed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed(_TWO)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert devices.pick_device("auto") == torch.device("cuda:1")
    assert (tmp_path / "locks" / "GPU-bbbb-2").exists()
    with pytest.raises(ValueError, match="several processes were launched, which need a GPU each"):
        devices.pick_device("cuda:0")


def test_parts_of_a_gpu_serve_one_process_each(
    listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed(_SPLIT)
    monkeypatch.setattr(launch, "torch_has_cuda", lambda: True)
    monkeypatch.setattr(os, "execv", None)
    with pytest.raises(ValueError, match=r"GPU 1 was asked for, but MIG-dddd-2 is a part of a GPU"):
        devices.pick_device("cuda:1")
    launched = CliRunner().invoke(app, ["launch", "--processes", "2", "retrain"])
    assert "2 processes were asked for, but MIG-cccc-1 is a part" in str(launched.exception)
    assert HELD not in os.environ
    assert devices.pick_device("auto") == torch.device("cuda")
    assert os.environ[VISIBLE] == "MIG-cccc-1"


def test_launched_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # what is set there is set back afterwards
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(launch, "cores", lambda: 9)
    monkeypatch.setattr(launch, "torch_has_cuda", lambda: False)
    monkeypatch.setattr(os, "execv", lambda _, words: started.append(words))
    CliRunner().invoke(app, ["launch", "--processes", "2", "retrain"], catch_exceptions=False)
    assert started[0][-1] == "retrain"
    assert os.environ["OMP_NUM_THREADS"] == "4"


def test_the_workflow_counts(listed: Listed, monkeypatch: pytest.MonkeyPatch) -> None:
    listed(_TWO)
    names = {"auto": 2, "cuda": 2, "cuda:1": 1, "cpu": 0}
    assert {name: devices.local_gpus(name) for name in names} == names


def _link(folder: Path, target: Path) -> None:
    folder.symlink_to(target)


def _file(folder: Path, target: Path) -> None:
    folder.touch()


def _lock_that_is_a_link(folder: Path, target: Path) -> None:
    folder.mkdir()
    (folder / "a").symlink_to(target / "dear")


def _lock_with_two_names(folder: Path, target: Path) -> None:
    folder.mkdir()
    os.link(target / "dear", folder / "a")


def _lock_that_is_a_pipe(folder: Path, target: Path) -> None:
    folder.mkdir()
    os.mkfifo(folder / "a")


@pytest.mark.parametrize(
    "make", [_link, _file, _lock_that_is_a_link, _lock_with_two_names, _lock_that_is_a_pipe]
)
def test_what_somebody_else_put_where_the_locks_are(
    tmp_path: Path, make: Callable[[Path, Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    target, folder = tmp_path / "home", tmp_path / "turns"
    target.mkdir(mode=0o700)
    (target / "dear").write_text("dear")
    make(folder, target)
    message = f"{re.escape(str(folder))}.*take turns.*remove it.*{SHARED}=1 goes on"
    with pytest.raises(gpus.GpuLockError, match=message):
        claim_gpus([Gpu("0", "a")], 1, folder)
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    assert os.listdir(target) == ["dear"]
    assert (target / "dear").read_text() == "dear"
    monkeypatch.setenv(SHARED, "1")
    assert claim_gpus([Gpu("0", "a")], 1, folder)


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_the_folder_of_another_person(tmp_path: Path) -> None:
    folder = tmp_path / "turns"
    folder.mkdir(mode=0o755)
    os.chown(folder, 12345, 12345)
    with pytest.raises(gpus.GpuLockError, match="has the mode 755, expected 1777, so jobs cannot"):
        claim_gpus([Gpu("0", "a")], 1, folder)
    folder.chmod(0o1777)  # as this package makes it
    assert claim_gpus([Gpu("0", "a")], 1, folder) == [Gpu("0", "a")]
