"""Pixel-adaptive refinement: against a slow reference, and what users may feed it."""

import math

import pytest
import torch
from torch import Tensor

from wsss.labels.par import par_refine, par_weights, pixel_adaptive_refinement


def _reference(image: Tensor, mask: Tensor, dilations: tuple[int, ...]) -> Tensor:
    """One iteration, pixel by pixel."""
    _, height, width = image.shape
    around = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
    steps = [(d * y, d * x) for d in dilations for y, x in around]
    distance = torch.tensor([math.hypot(*step) for step in steps])
    nearness = (-((distance / (distance.std() + 1e-8) / 0.3) ** 2)).softmax(0)
    out = torch.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            rows = [min(max(y + step[0], 0), height - 1) for step in steps]
            columns = [min(max(x + step[1], 0), width - 1) for step in steps]
            near = image[:, rows, columns]
            gap = (near - image[:, y, x, None]).abs() / (near.std(1, keepdim=True) + 1e-8) / 0.3
            weights = (-(gap**2).mean(0)).softmax(0) + 0.01 * nearness
            out[:, y, x] = (mask[:, rows, columns] * weights).sum(1)
    return out


def test_equals_the_formula_pixel_by_pixel() -> None:
    torch.manual_seed(0)
    image, mask = torch.randn(3, 7, 9), torch.rand(2, 7, 9)
    actual = pixel_adaptive_refinement(image[None], mask[None], iterations=1, dilations=(1, 3))
    torch.testing.assert_close(actual[0], _reference(image, mask, (1, 3)), atol=1e-5, rtol=0)


def test_images_and_classes_do_not_meet() -> None:
    torch.manual_seed(1)
    images, masks = torch.randn(2, 3, 12, 16), torch.rand(2, 3, 12, 16)
    masks[1, 2] = 0  # padding of an image with fewer classes
    together = pixel_adaptive_refinement(images, masks, iterations=3)
    for k in range(2):
        alone = pixel_adaptive_refinement(images[k : k + 1], masks[k : k + 1, :2], iterations=3)
        torch.testing.assert_close(together[k, :2], alone[0])
    assert together[1, 2].abs().max() == 0


def test_flat_image_stays_finite_and_weights_sum_to_one_and_a_hundredth() -> None:
    weights = par_weights(torch.full((1, 3, 8, 8), 2.0))
    torch.testing.assert_close(weights.sum(1), torch.full((1, 8, 8), 1.01))
    mask = torch.rand(1, 2, 8, 8)
    assert par_refine(mask, weights, iterations=2).isfinite().all()


def test_edge_of_the_image_holds_the_mask() -> None:
    torch.manual_seed(2)
    image = torch.zeros(1, 3, 20, 20)
    image[..., 10:] = 1.0
    mask = torch.zeros(1, 1, 20, 20)
    mask[..., 13:] = 1.0  # three pixels short of the edge
    refined = pixel_adaptive_refinement(image + 0.01 * torch.randn_like(image), mask)[0, 0]
    assert refined[:, 10:13].min() > 0.5
    assert refined[:, 7:10].max() < 0.5


def test_wrong_dilations_are_named() -> None:
    with pytest.raises(ValueError, match="dilations must be positive"):
        par_weights(torch.rand(1, 3, 4, 4), ())
    weights = par_weights(torch.rand(1, 3, 4, 4), (1,))
    with pytest.raises(ValueError, match="8 neighbours, but dilations"):
        par_refine(torch.rand(1, 1, 4, 4), weights, dilations=(1, 2))
