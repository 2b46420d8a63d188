"""What torch was built for, NVIDIA's driver, and which goes with which."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from wsss.compute import cuda
from wsss.compute.cuda import TorchBuild, driver_version, is_older, torch_build


def test_how_torch_was_built_is_read_without_importing_it() -> None:
    code = "import sys; from wsss.compute.cuda import torch_build\n"
    code += "print(torch_build()); assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.startswith(f"torch {torch.__version__} for ")
    assert torch_build().cuda == torch.version.cuda


def test_versions_are_compared_as_numbers() -> None:
    assert is_older("580.9", "580.65.06")
    assert is_older("95.1", "580.65.06")
    assert not is_older("580.65.06", "580.65.6")
    assert not is_older("600.1", "580.65.06")


def test_the_driver_that_a_build_needs() -> None:
    assert TorchBuild("2.13.0", "13.0", None).oldest_driver == "580.65.06"
    assert TorchBuild("2.13.0", "12.6", None).oldest_driver == "525.60.13"
    assert TorchBuild("2.13.0+cpu", None, None).oldest_driver == ""


def test_the_driver_by_nvidia_smi_or_by_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "_DRIVER_FILE", tmp_path / "version")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert driver_version() == ""
    (tmp_path / "version").write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build\n"
    )
    assert driver_version() == "570.124.06"
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 580.65.06\necho 580.65.06\n")
    program.chmod(0o755)
    assert driver_version() == "580.65.06"
    program.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert driver_version() == "570.124.06"
