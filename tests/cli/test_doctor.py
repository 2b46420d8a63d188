"""`wsss doctor` on this machine and with a fake nvidia-smi."""

import json
import os
import sys
from pathlib import Path

import pytest

from tests.hostile.harness import wsss
from wsss.cli import doctor
from wsss.cli.weights_check import names_file
from wsss.compute import cuda
from wsss.compute.cuda import TorchBuild, torch_has_cuda

_NVIDIA_SMI = """#!/bin/sh
case "$*" in
-L) echo 'GPU 0: X (UUID: GPU-aaaa-1)';;
*compute_cap*) echo 'GTX 1080, {capability}';;
*) echo {driver};;
esac
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, whose programs are found first."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def _states(output: str) -> dict[str, str]:
    lines = [line.split(maxsplit=2) for line in output.splitlines() if not line.startswith(" ")]
    return {words[1]: words[0] for words in lines}


def _nvidia_smi(folder: Path, driver: str, capability: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(_NVIDIA_SMI.format(driver=driver, capability=capability))
    program.chmod(0o755)


@pytest.mark.slow
def test_this_machine_and_a_missing_file(folder: Path) -> None:
    pretrained = folder / "gone.safetensors"
    file = folder / "mine.yaml"
    file.write_text(json.dumps({"clip": {"pretrained": str(pretrained)}}))
    done = wsss("doctor", "--config", file)
    states = _states(done.text)
    assert done.code == 1, done.text
    assert states.pop("weights") == "failure"
    assert "no such file; clip.pretrained names it" in done.text
    assert states.keys() >= {"Python", "torch", "GPU", "arithmetic", "OpenCV", "disk", "/dev/shm"}
    assert states["arithmetic"] == states["OpenCV"] == states["Python"] == "ok"


@pytest.mark.slow
@pytest.mark.skipif(torch_has_cuda(), reason="this torch has CUDA")
def test_a_card_and_a_torch_for_the_cpu(folder: Path) -> None:
    _nvidia_smi(folder, "580.65.06", "8.0")
    done = wsss("doctor")
    assert done.code == 1, done.text
    assert _states(done.text)["GPU"] == "failure"
    assert "nvidia-smi lists 1 GPU; GTX 1080 (8.0); driver 580.65.06; this torch is" in done.text
    (folder / "config.yaml").write_text(json.dumps({"compute": {"device": "cpu"}}))
    done = wsss("doctor")  # meant
    assert (done.code, _states(done.text)["GPU"]) == (0, "ok"), done.text


def test_what_goes_together(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_DRIVER_FILE", folder / "none")
    build = TorchBuild("2.13.0", "13.0", None)
    for driver, capability, reason in (
        ("550.54.15", "8.0", "CUDA 13.0 needs a driver of 580.65.06 or newer"),
        ("580.65.06", "6.1", "cards of capability 7.5 or newer: not GTX 1080"),
    ):
        _nvidia_smi(folder, driver, capability)
        check = doctor._gpu("auto", build)
        assert check.state == "failure"
        assert reason in check.result
        assert "another build of torch" in check.remedy


def test_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._disk(tmp_path / "not" / "there").state in ("ok", "warning")
    monkeypatch.setattr(doctor, "_FULL", 1e18)
    assert doctor._disk(tmp_path).state == "failure"
    monkeypatch.setattr(doctor, "_SHARED", 1 << 60)
    check = doctor._shared_memory()
    assert check.state == ("ok" if check.result == "without a limit" else "warning")


def test_wrong_arithmetic_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._arithmetic("cpu").state == "ok"
    monkeypatch.setattr(doctor, "_CLOSE", 1e-12)  # more than float32 has
    assert doctor._arithmetic("cpu").state == "failure"


def test_what_is_a_path() -> None:
    assert names_file("${WSSS_SHARED}/weights/vit.pt")
    assert names_file("gone.safetensors")
    assert not names_file("openai")
    assert not names_file("laion2b_s34b.b88k")


@pytest.mark.parametrize(
    ("version", "state"),
    [
        ((3, 10), "failure"),
        ((3, 11), "ok"),
        ((3, 12), "ok"),
        ((3, 13), "warning"),
        ((3, 14), "failure"),
    ],
)
def test_a_python_that_was_tried_in_part_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], state: str
) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    check = doctor._python()
    assert check.state == state
    assert ("make a virtual environment of Python 3.11, 3.12" in check.remedy) == (state != "ok")
