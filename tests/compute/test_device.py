"""GPUs that are here but that torch cannot use, in real processes with a fake nvidia-smi."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.builders import clip_es_config
from wsss.compute.gpus import HELD, SHARED, VISIBLE
from wsss.data.ingest.stage import ingest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(shutil.which("nvidia-smi")), reason="CUDA may work here"),
]
_NVIDIA_SMI = """#!/bin/sh
case "$1" in
-L) echo 'GPU 0: X (UUID: GPU-aaaa-1)';;
*) echo 550.54.15;;
esac
"""
# Picks a device as a stage does, says what came of it, and runs until its standard input ends.
_JOB = """
import logging, os, sys
from pathlib import Path
from wsss.compute import device, gpus
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
gpus._FOLDER = Path(sys.argv[1])
device.torch_has_cuda = lambda: True  # as that of the public index
for name in sys.argv[2:]:
    try:
        print("got", device.pick_device(name), os.environ.get(gpus.VISIBLE), flush=True)
    except ValueError as error:
        print("error:", error, flush=True)
print("waits", gpus.HELD in os.environ, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VISIBLE, HELD, SHARED, "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(_NVIDIA_SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout
    for line in process.stdout:
        yield line.strip()
        if line.startswith("waits"):
            return


_PLAIN: dict[str, str] = {}
_SLURM = {"SLURM_JOB_ID": "7", VISIBLE: "0"}


@pytest.mark.parametrize(
    ("name", "environment"), [("auto", _PLAIN), ("auto", _SLURM), ("cuda", _PLAIN)]
)
def test_a_gpu_that_is_of_no_use_is_given_back(
    tmp_path: Path, name: str, environment: dict[str, str]
) -> None:
    locks = tmp_path / "locks"
    names = [name] if name == "cuda" else [name, name]
    command = [sys.executable, "-c", _JOB, str(locks), *names]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=os.environ | environment, text=True, **pipes) as process:
        try:
            *lines, ends = _lines(process)
            assert ends == "waits False"
            (file,) = os.listdir(locks)
            with (locks / file).open() as lock:  # while the process runs
                assert lock.read() == str(process.pid)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            process.kill()
    if name == "cuda":
        (message,) = lines
        assert message.startswith("error: no GPU: compute.device is cuda, but this machine shows")
    else:
        message, device, *picked = lines
        assert message.startswith("WARNING: nvidia-smi lists 1 GPU, but torch cannot use any")
        assert device == "computing on the CPU"
        assert picked == [f"got cpu {environment.get(VISIBLE)}"] * 2
    reason = message.partition("torch says: ")[2]
    assert reason.partition(";")[0]
    assert "driver 550.54.15; torch 2." in reason


def test_a_stage_says_that_it_computes_on_the_cpu(tmp_path: Path) -> None:
    photos, manifest = tmp_path / "photos", tmp_path / "manifest"
    photos.mkdir()
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(photos / "p.png")
    (photos / "tags.csv").write_text("image,tags\np.png,cat\n")
    data = {"kind": "folder", "root": str(photos), "val_list": "", "backgrounds": ["grass"]}
    config = clip_es_config({"data": data, "cams": {"splits": ["train"]}})
    ingest(manifest, variant=config.variant, data=config.data, compute=config.compute)
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps(config.model_dump(mode="json")))
    command = [sys.executable, "-m", "wsss", "cams", "--manifest", manifest, "--config", file]
    command += ["--split", "train", "--out", tmp_path / "cams.h5"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stderr.count("computing on the CPU\n") == 1
    assert done.stderr.count("WARNING: nvidia-smi lists 1 GPU, but torch cannot use any") == 1
    assert f"torch {torch.__version__}" in done.stderr


@pytest.mark.parametrize(("device", "seen"), [("cpu", ""), ("cuda", "None")])
def test_tests_see_no_gpu_unless_told(device: str, seen: str) -> None:
    """One that holds a GPU would wait for those that it starts."""
    text = f"import os, tests.conftest; print(os.environ.get({VISIBLE!r}))"
    environment = os.environ | {"WSSS_TEST_DEVICE": device}
    command = [sys.executable, "-c", text]
    root = Path(__file__).parents[2]
    assert subprocess.check_output(command, cwd=root, env=environment, text=True) == f"{seen}\n"
