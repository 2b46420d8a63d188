"""Two processes that share each batch learn what one learns (on CPUs, over gloo)."""

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from torch.multiprocessing import start_processes
from typer.testing import CliRunner

from tests.builders import provenance, write_shard
from tests.processes import work
from tests.refine.chain import Chain, assert_same_weights
from wsss.artifacts.checkpoint import load_checkpoint
from wsss.artifacts.shard import Item
from wsss.artifacts.stage import STAGES
from wsss.cli.app import app
from wsss.cli.commands.launch import _device, check_processes
from wsss.compute.threads import fixed_threads
from wsss.data.manifest_folder import load
from wsss.masks.seeds_stage import run as make_seeds

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
_PATIENCE = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trainings of one process (``one``) and of two (``two``), which fork from this one."""
    folder = tmp_path_factory.mktemp("processes")
    chain = Chain(folder, {"method": "weakclip", "train": work.STEPS})
    make_seeds(chain.manifest, "train", chain.cams["train"], folder / "seeds.h5",
        folder / "png", **STAGES["seeds"].arguments(chain.config()))  # fmt: skip
    base = {name: chain.base[name] for name in ("compute", "data", "infer")}
    (folder / "chain.json").write_text(json.dumps(base))
    _masks(chain)
    (folder / "one").mkdir()
    with fixed_threads(1):
        work.compared(folder, folder / "one")
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    start_processes(_member, (port, folder), nprocs=2, start_method="fork")
    return folder


def _member(rank: int, port: int, folder: Path) -> None:
    """One of two processes, with the variables that torchrun gives them."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    work.main(folder)


def _masks(chain: Chain) -> None:
    """Targets with very different numbers of labelled pixels."""
    manifest, _ = load(chain.manifest)
    samples = manifest.split("train")
    random, items = np.random.default_rng(0), []
    for index, sample in enumerate(samples):
        label = random.integers(0, 3, (sample.height, sample.width), dtype=np.uint8)
        train = label.copy()
        train[: index * sample.height // len(samples)] = 255
        items.append(Item(sample.id, {"label": label, "train": train}))
    write_shard(chain.folder / "masks.h5", "masks", items, provenance("masks"))


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("what", [*work.REFINERS, "segmenter"])
def test_the_gradient_is_that_of_the_whole_batch(folder: Path, what: str) -> None:
    """Only the order of sums differs: 1e-4 of the largest gradient is far above that."""
    single, shared = (torch.load(folder / n / "gradients.pt")[what] for n in ("one", "two"))
    assert len(single) == len(shared) > 0
    scale = max(float(grad.abs().max()) for grad in single)
    apart = max(float((a - b).abs().max()) for a, b in zip(single, shared, strict=True))
    print(f"{what}: gradients differ by at most {apart / scale:.1e} of the largest")
    assert scale > 0
    assert apart <= 1e-4 * scale


def test_batch_normalisation_covers_all_processes(folder: Path) -> None:
    single, shared = (torch.load(folder / n / "gradients.pt")["norm"] for n in ("one", "two"))
    for actual, expected in zip(shared, single, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_batch_normalisation_of_bfloat16_counts_in_float32(folder: Path) -> None:
    single, shared = (
        torch.load(folder / n / "gradients.pt")["norm in bfloat16"] for n in ("one", "two")
    )
    weight, mean, variance, *images = zip(shared, single, strict=True)
    for actual, expected in (mean, variance):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
    for actual, expected in (weight, *images):
        torch.testing.assert_close(actual, expected, rtol=2e-2, atol=2e-2)


def test_only_the_first_process_writes_the_curve(folder: Path) -> None:
    for name in ("weclip/refiner.csv", "seg/segmenter.csv"):
        single, shared = (
            list(csv.DictReader((folder / n / name).open())) for n in ("one", "two")
        )  # fmt: skip
        assert list(single[0]) == list(shared[0])
        assert float(single[0]["loss"]) == pytest.approx(float(shared[0]["loss"]), rel=1e-3)
    assert not [path for path in (folder / "two").rglob("*") if ".tmp-" in path.name]


@pytest.mark.parametrize("name", ["refiner.safetensors", "segmenter.safetensors"])
def test_an_interrupted_training_of_two_ends_in_the_same_weights(folder: Path, name: str) -> None:
    whole, cut = folder / "two/whole" / name, folder / "two/cut" / name
    assert load_checkpoint(whole)[0]
    assert_same_weights(cut, whole)


def test_all_processes_stop_when_one_receives_a_signal(folder: Path) -> None:
    assert [(folder / f"two/stopped-{n}").read_text() for n in (0, 1)] == ["4", "4"]


def test_batches_that_cannot_be_shared_are_refused(folder: Path) -> None:
    batch, mean = json.loads((folder / "two/refused.json").read_text())
    assert "refine.train.batch is 3, which 2 devices cannot share evenly" in batch
    assert "refine.excel.relation_mean is batch" in mean


def test_the_launcher_starts_several_processes(folder: Path, tmp_path: Path) -> None:
    """`wsss launch --processes 2 refine-train`, as the rules call it."""
    command = [sys.executable, "-m", "wsss", "launch", "--processes", "2"]
    cams, config = str(folder / "cams-train.h5"), tmp_path / "config.yaml"
    small = work.REFINERS["weclip"]["refine"] | {"method": "weclip", "train": work.STEPS}
    base = json.loads((folder / "chain.json").read_text())
    config.write_text(json.dumps(base | {"refine": small}))
    paths = {"manifest": folder / "manifest", "out": tmp_path / "r.safetensors"}
    paths |= {"log": tmp_path / "r.csv", "work": tmp_path / "work", "cache": tmp_path / "cache"}
    options = [part for name, path in paths.items() for part in (f"--{name}", str(path))]
    done = _run(*command, "refine-train", cams, "--config", str(config), *options)
    assert done.returncode == 0, done.stdout
    assert load_checkpoint(tmp_path / "r.safetensors")[1].stage == "refine_train"
    assert (tmp_path / "r.csv").exists()


def test_single_process_stages_are_not_launched_in_several(tmp_path: Path) -> None:
    launch = CliRunner().invoke(app, ["launch", "--processes", "2", "masks", "--out", "x"])
    assert launch.exit_code == 2
    assert "masks runs in one process" in launch.output
    with mock.patch.dict(os.environ, {"WORLD_SIZE": "2"}):
        check_processes(["retrain", "--out", "x"])
        with pytest.raises(ValueError, match=r"2 processes of `wsss masks` were launched"):
            check_processes(["masks"])


@pytest.mark.parametrize(
    ("command", "device"),
    [
        (["retrain", "--device", "cpu", "--out", "x"], "cpu"),
        (["retrain", "--out", "x", "--device=cuda:1"], "cuda:1"),
        (["retrain", "--device"], "auto"),
        (["retrain"], "auto"),
    ],
)
def test_the_launcher_reads_the_device_of_its_command(command: list[str], device: str) -> None:
    assert _device(command) == device
