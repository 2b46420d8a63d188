"""Pixel-adaptive refinement on a pretended GPU, and what is handed to the CRF."""

import numpy as np
import pytest
import torch

from tests.gpu.pretend import PretendGpu
from wsss.config.labels import CrfConfig
from wsss.labels.online import IgnoreBand, online_labels
from wsss.labels.par import pixel_adaptive_refinement
from wsss.refine.weakclip.losses import crf_targets

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


def test_labels_of_a_batch_are_those_of_the_cpu() -> None:
    images, maps, image_index, classes = _batch()
    band = IgnoreBand(0.4, 0.6)
    expected = online_labels(images, maps, image_index, classes, SIZE, ignore_band=band)
    with PretendGpu():
        there = images.to("cuda"), maps.to("cuda"), image_index.to("cuda"), classes.to("cuda")
        actual = online_labels(*there, SIZE, ignore_band=band).cpu()
    assert (actual == expected).float().mean() > 0.999


@pytest.mark.parametrize("tags", [False, True])
def test_the_crf_is_given_a_batch_in_one_transfer(tags: bool) -> None:
    probs = torch.rand(2, 4, 12, 16).softmax(1)
    photos = [np.random.default_rng(i).integers(0, 255, (12, 16, 3), np.uint8) for i in range(2)]
    allowed = torch.tensor([[1, 0, 1, 1], [1, 1, 0, 0]], dtype=torch.bool) if tags else None
    crf = CrfConfig(iterations=2)
    expected = crf_targets(probs, photos, crf, allowed)
    with PretendGpu() as gpu:
        there = probs.to("cuda")
        gpu.clear()
        smoothed = crf_targets(there, photos, crf, allowed)
        assert gpu.downloads.total() == 1
        assert smoothed.is_cuda
        torch.testing.assert_close(smoothed.cpu(), expected)
