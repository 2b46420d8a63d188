"""Processes that load batches: enough shared memory, and one sentence when they fail."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch.utils.data import DataLoader, Dataset

from tests.machines import name_space
from tests.retrain.conftest import build_config, make_data
from tests.retrain.test_dataset import make
from wsss.compute.shared_memory import SharedMemoryError
from wsss.retrain import loader
from wsss.retrain.dataset import PseudoMaskDataset, StreamSampler
from wsss.retrain.loader import (
    BYTES_PER_PIXEL,
    LoaderError,
    loader_settings,
    loading,
    shared_collate,
)


class Samples(Dataset[dict[str, Any]]):
    """Endless samples of 16 x 16 pixels, after something happened."""

    def __init__(self, event: Callable[[], object]) -> None:
        self._event = event

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, position: int) -> dict[str, Any]:
        self._event()
        labels = SegDataSample(gt_sem_seg=PixelData(data=torch.zeros(1, 16, 16, dtype=torch.long)))
        return {"inputs": torch.zeros(3, 16, 16, dtype=torch.uint8), "data_samples": labels}


def batches(dataset: Dataset[dict[str, Any]], workers: int = 2, **changes: Any) -> list[Any]:
    settings = loader_settings(workers) | {"collate_fn": shared_collate} | changes
    with loading(workers, 2, 16):
        iterator = iter(DataLoader(dataset, batch_size=2, **settings))
        return [next(iterator) for _ in range(6)]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleep_once(seconds: list[float] = [1.5]) -> None:  # noqa: B006 - of a process
    time.sleep(seconds.pop() if seconds else 0)


def fill(_: int) -> None:
    """Let no file of this process grow, as when shared memory is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def test_batches_come_in_shared_memory() -> None:
    for batch in batches(Samples(lambda: None)):
        tensors = [*batch["inputs"], *(s.gt_sem_seg.data for s in batch["data_samples"])]
        assert all(tensor.is_shared() for tensor in tensors)


def test_the_room_that_batches_need(data: Any, configure: Any) -> None:
    dataset = make(data, data.masks(), configure(crop=32))
    sample = dataset[0]
    assert sample["inputs"].shape == (3, 32, 32)
    tensors = sample["inputs"], sample["data_samples"].gt_sem_seg.data
    assert sum(tensor.nbytes for tensor in tensors) == BYTES_PER_PIXEL * 32 * 32


def test_full_shared_memory_is_reported_at_once() -> None:
    with pytest.raises(SharedMemoryError) as caught:
        batches(Samples(lambda: None), worker_init_fn=fill)
    assert str(caught.value).startswith("/dev/shm (")
    assert "a batch could not be placed there" in str(caught.value)
    assert "compute.workers" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_a_process_that_dies() -> None:
    with pytest.raises(SharedMemoryError, match=r"^/dev/shm .*was killed.*compute\.workers"):
        batches(Samples(die))


def test_a_process_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "_PATIENCE", 1)
    with pytest.raises(SharedMemoryError, match=r"does not answer.* timed out after 1 seconds"):
        batches(Samples(sleep_once))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_photo_that_vanished(data: Any, configure: Any, workers: int) -> None:
    dataset: PseudoMaskDataset = make(data, data.masks(), configure(), cache_bytes=0)
    for sample in data.samples:
        sample.path.unlink()
    with pytest.raises((LoaderError, ValueError)) as caught:
        batches(dataset, workers, sampler=StreamSampler(dataset))
    assert str(caught.value).endswith("missing file")
    assert str(caught.value).startswith(str(data.root))


@pytest.mark.slow
def test_a_training_with_little_shared_memory(tmp_path: Path) -> None:
    """64 KiB, as on a node where others filled it; the command ends, and says what to do."""
    data, config = make_data(tmp_path / "set"), tmp_path / "config.yaml"
    config.write_text(build_config(workers=2).model_dump_json())
    masks, out = data.masks(), str(tmp_path / "out.safetensors")
    paths = {"manifest": data.manifest_dir, "log": tmp_path / "log.csv", "work": tmp_path / "work"}
    options = [part for name, path in paths.items() for part in (f"--{name}", str(path))]
    command = [sys.executable, "-m", "wsss", "retrain", *map(str, masks), "--out", out, *options]
    small = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"'
    done = subprocess.run(
        [*name_space("-U", "-r", "-m"), "sh", "-c", small, "sh", *command, "--config", str(config)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: /dev/shm has 0.1 MiB free, but 2 proc")
    assert "compute.workers" in done.stderr
    assert "Traceback" not in done.stderr
