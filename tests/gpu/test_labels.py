"""Pixel-adaptive refinement on a pretended GPU, and what is handed to the CRF."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.builders import provenance
from tests.gpu.pretend import PretendGpu
from wsss.artifacts.shard import Shard
from wsss.compute.pool import WorkerPool
from wsss.config.labels import CrfConfig
from wsss.data.manifest import Sample
from wsss.labels.online import IgnoreBand, online_labels
from wsss.labels.par import pixel_adaptive_refinement
from wsss.labels.prediction import Prediction, candidates, label_maps
from wsss.labels.prediction_shards import PredictionJob, write_predictions
from wsss.refine.weakclip.losses import start_crf

SIZE = (40, 56)


def _batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    images = torch.rand(3, 3, 5, 7, generator=random)
    images = torch.nn.functional.interpolate(images, SIZE, mode="bicubic")
    maps = torch.rand(3, 5, 7, generator=random)
    return images, maps, torch.tensor([0, 0, 2]), torch.tensor([4, 1, 7])


def test_par_equals_that_of_the_cpu() -> None:
    images, masks = _batch()[0], torch.rand(3, 4, *SIZE)
    expected = pixel_adaptive_refinement(images, masks)
    with PretendGpu() as gpu:
        there = images.to("cuda"), masks.to("cuda")
        gpu.clear()
        refined = pixel_adaptive_refinement(*there)
        assert gpu.launches.total() <= 45
        actual = refined.cpu()
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


def test_the_neighbours_of_a_size_are_uploaded_once() -> None:
    images, masks = _batch()[0], torch.rand(3, 4, *SIZE)
    for _ in range(2):  # what lies on one GPU is not taken for what lies on another
        with PretendGpu() as gpu:
            there = images.to("cuda"), masks.to("cuda")
            first = pixel_adaptive_refinement(*there)
            gpu.clear()
            assert torch.equal(pixel_adaptive_refinement(*there), first)
            assert not gpu.uploads


def test_labels_of_a_batch_are_those_of_the_cpu() -> None:
    images, maps, image_index, classes = _batch()
    band = IgnoreBand(0.4, 0.6)
    expected = online_labels(images, maps, image_index, classes, SIZE, ignore_band=band)
    with PretendGpu():
        there = images.to("cuda"), maps.to("cuda"), image_index.to("cuda"), classes.to("cuda")
        actual = online_labels(*there, SIZE, ignore_band=band).cpu()
    assert (actual == expected).float().mean() > 0.999


@pytest.mark.parametrize("tags", [False, True])
def test_the_crf_of_a_training_runs_on_the_gpu(tags: bool) -> None:
    probs = torch.rand(2, 4, 12, 16).softmax(1)
    photos = [np.random.default_rng(i).integers(0, 255, (12, 16, 3), np.uint8) for i in range(2)]
    allowed = torch.tensor([[1, 0, 1, 1], [1, 0, 0, 0]], dtype=torch.bool) if tags else None
    crf = CrfConfig(iterations=2, backend="torch")
    expected = start_crf(probs, photos, crf, allowed, WorkerPool(1))()
    with PretendGpu() as gpu:
        there = probs.to("cuda")
        gpu.clear()
        smoothed = start_crf(there, photos, crf, allowed, WorkerPool(1))()
        assert smoothed.is_cuda
        # Extents of a lattice are read; probabilities are not.
        assert all(line.startswith("labels/lattice_keys") for line in gpu.downloads)
        assert _launches_of_the_crf(gpu) > 100
        torch.testing.assert_close(smoothed.cpu(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("long_side", [None, 40])
def test_predictions_are_refined_on_the_gpu(tmp_path: Path, long_side: int | None) -> None:
    images = {f"{n}": scene(n) for n in range(3)}
    images["other size"] = scene(3, size=(48, 30))
    crf = CrfConfig(iterations=2, backend="torch", long_side=long_side)
    expected = {image: label_maps(prediction, crf) for image, prediction in images.items()}
    assert any((maps["multi"] != maps["multi_crf"]).any() for maps in expected.values())
    samples = [
        Sample(image, "val", Path(image), p.image.shape[1], p.image.shape[0], image, ())
        for image, p in images.items()
    ]
    with PretendGpu() as gpu:
        write_predictions(
            PredictionJob(tmp_path / "p.h5", samples, provenance("predict"), crf, 2, ""),
            lambda some: ((sample.id, images[sample.id]) for sample in some),
            key="",
            device="cuda:0",
        )
        assert _launches_of_the_crf(gpu) > 100
    with Shard(tmp_path / "p.h5") as shard:
        actual = {item.id: item.arrays for item in shard}
    assert actual.keys() == expected.keys()
    for image, maps in expected.items():
        assert actual[image].keys() == maps.keys()
        for name, labels in maps.items():
            assert np.array_equal(actual[image][name], labels), (image, name)


def scene(seed: int, size: tuple[int, int] = SIZE) -> Prediction:
    """A photo of halves with noise, and the predictions of two protocols."""
    random = np.random.default_rng(seed)
    photo = np.full((*size, 3), 40, np.uint8)
    photo[:, size[1] // 2 :] = 200
    protocols = {}
    for name, labels in (("single", 3), ("multi", 4)):
        logits = torch.from_numpy(random.normal(size=(labels, *size)).astype(np.float32))
        logits[0, :, : size[1] // 2] += 2
        logits[2, :, size[1] // 2 :] += 2
        protocols[name] = candidates(logits.softmax(0).numpy(), "candidates")
    return Prediction(photo, protocols)


def _launches_of_the_crf(gpu: PretendGpu) -> int:
    rooms = ("labels/lattice_crf", "labels/permutohedral", "labels/lattice_keys")
    return sum(count for line, count in gpu.launches.items() if line.startswith(rooms))


@pytest.mark.parametrize("tags", [False, True])
def test_the_crf_is_given_a_batch_in_one_transfer(tags: bool) -> None:
    probs = torch.rand(2, 4, 12, 16).softmax(1)
    photos = [np.random.default_rng(i).integers(0, 255, (12, 16, 3), np.uint8) for i in range(2)]
    allowed = torch.tensor([[1, 0, 1, 1], [1, 1, 0, 0]], dtype=torch.bool) if tags else None
    crf = CrfConfig(iterations=2)
    expected = start_crf(probs, photos, crf, allowed, WorkerPool(1))()
    with PretendGpu() as gpu:
        there = probs.to("cuda")
        gpu.clear()
        smoothed = start_crf(there, photos, crf, allowed, WorkerPool(1))()
        assert gpu.downloads.total() == 1
        assert smoothed.is_cuda
        torch.testing.assert_close(smoothed.cpu(), expected)
