"""Segmenters on a pretended GPU: trained, and predicting, as on the CPU."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from tests.builders import shard_state
from tests.gpu.pretend import PretendGpu
from tests.retrain.conftest import Data, build_config, make_data, small_networks
from tests.retrain.trainings import run as train
from wsss.artifacts.shard import Shard
from wsss.artifacts.stage import STAGES
from wsss.config.model import Config
from wsss.retrain.predict import run as predict
from wsss.retrain.runner import ProgressHook

__all__ = ["small_networks"]
MODELS = ("segformer-b0", "deeplabv3plus-r50", "clip-vit")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_networks", "one_thread")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return make_data(tmp_path_factory.mktemp("set"))


@pytest.mark.parametrize("name", MODELS)
def test_losses_and_labels_are_those_of_the_cpu(data: Data, tmp_path: Path, name: str) -> None:
    on_cpu = build_config(model=name, predict={"crf": True})
    on_gpu = on_cpu.model_copy(
        update={"compute": on_cpu.compute.model_copy(update={"device": "cuda"})}
    )
    (tmp_path / "cpu").mkdir()
    (tmp_path / "gpu").mkdir()
    _, expected = train(data, on_cpu, tmp_path / "cpu")
    with PretendGpu() as gpu, _waits_of_steps(gpu) as waits:
        _, actual = train(data, on_gpu, tmp_path / "gpu")
    assert waits == [1] * on_gpu.retrain.iterations
    # Dropout draws in the order of the memory, which differs: the loss is close, not the same.
    np.testing.assert_allclose(_losses(actual), _losses(expected), rtol=0.05)
    checkpoint = tmp_path / "cpu/segmenter.safetensors"
    labels = _labels(data, on_cpu, checkpoint, tmp_path / "cpu.h5")
    with PretendGpu() as gpu:
        there = _labels(data, on_gpu, checkpoint, tmp_path / "gpu.h5")
        planes = tmp_path / "two.planes"
        values = STAGES["predict"].arguments(on_gpu)
        predict(data.manifest_dir, "val", (1, 1), checkpoint, tmp_path / "two.h5", planes, **values)
    assert gpu.launches.total() > 100
    _assert_half(planes)
    _labels(data, on_cpu, checkpoint, tmp_path / "two.h5", planes)
    assert shard_state(tmp_path / "two.h5") == shard_state(tmp_path / "gpu.h5")
    for image, arrays in labels.items():
        for protocol, array in arrays.items():
            assert (there[image][protocol] == array).mean() > 0.99, (image, protocol)


@contextmanager
def _waits_of_steps(gpu: PretendGpu) -> Iterator[list[int]]:
    """Of the step, its measurements and the hooks before it; checkpoints do not count."""
    waits: list[int] = []
    before, after = ProgressHook.before_train_iter, ProgressHook.after_train_iter

    def start(*arguments: Any, **named: Any) -> None:
        gpu.clear()
        before(*arguments, **named)

    def end(*arguments: Any, **named: Any) -> None:
        after(*arguments, **named)
        waits.append(gpu.waits.total())

    with (
        mock.patch.object(ProgressHook, "before_train_iter", start),
        mock.patch.object(ProgressHook, "after_train_iter", end),
    ):
        yield waits


def _losses(curve: str) -> list[float]:
    return [float(row["loss"]) for row in csv.DictReader(curve.splitlines())]


def _assert_half(planes: Path) -> None:
    """A GPU hands planes over in half precision."""
    with Shard(planes, kind="planes") as shard:
        kinds = {array.dtype for item in shard for array in item.arrays.values()}
    assert kinds == {np.dtype(np.uint8), np.dtype(np.float16)}


def _labels(
    data: Data, config: Config, checkpoint: Path, out: Path, planes: Path | None = None
) -> dict[str, Any]:
    values = STAGES["predict"].arguments(config)
    predict(data.manifest_dir, "val", (1, 1), checkpoint, out, None, planes, **values)
    with Shard(out) as shard:
        return {item.id: item.arrays for item in shard}
