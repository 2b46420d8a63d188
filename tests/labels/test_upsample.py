"""Bilinear resizing against a formula, and against torch."""

import numpy as np
import pytest
import torch

from wsss.labels.upsample import RunningShrink, shrink, upsample


def bilinear(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pixel centres aligned, edges repeated, one output pixel at a time."""
    h, w = plane.shape
    large = np.empty((height, width))
    for row in range(height):
        for column in range(width):
            y = min(max((row + 0.5) * h / height - 0.5, 0), h - 1)
            x = min(max((column + 0.5) * w / width - 0.5, 0), w - 1)
            y0, x0 = int(y), int(x)
            y1, x1, fy, fx = min(y0 + 1, h - 1), min(x0 + 1, w - 1), y - int(y), x - int(x)
            top = plane[y0, x0] * (1 - fx) + plane[y0, x1] * fx
            bottom = plane[y1, x0] * (1 - fx) + plane[y1, x1] * fx
            large[row, column] = top * (1 - fy) + bottom * fy
    return large


@pytest.mark.parametrize(
    ("grid", "size"), [((6, 9), (93, 141)), ((1, 1), (5, 7)), ((1, 4), (9, 3)), ((8, 8), (5, 20))]
)
def test_follows_the_formula(grid: tuple[int, int], size: tuple[int, int]) -> None:
    maps = np.random.default_rng(0).random((3, *grid)).astype(np.float16)
    actual = upsample(maps, size)
    assert actual.dtype == np.float32
    assert actual.flags.c_contiguous
    expected = np.stack([bilinear(plane.astype(float), *size) for plane in maps])
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_agrees_with_torch_for_many_classes() -> None:
    maps = np.random.default_rng(1).random((150, 5, 6)).astype(np.float32)
    actual = upsample(maps.transpose(0, 2, 1), (33, 41))  # not contiguous
    grid = torch.from_numpy(np.ascontiguousarray(maps.transpose(0, 2, 1)))[None]
    expected = torch.nn.functional.interpolate(grid, (33, 41), mode="bilinear")[0]
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_no_class() -> None:
    assert upsample(np.zeros((0, 4, 4), np.float16), (8, 9)).shape == (0, 8, 9)


def test_upsampling_stays_within_the_values_of_the_grid() -> None:
    maps = np.random.default_rng(2).random((4, 7, 5)).astype(np.float16)
    actual = upsample(maps, (113, 97))
    assert (actual.max((1, 2)) <= maps.max((1, 2)).astype(np.float32)).all()
    assert (actual.min((1, 2)) >= maps.min((1, 2)).astype(np.float32)).all()


@pytest.mark.parametrize("after", [(60, 90), (47, 70), (30, 45), (1, 2)])
@pytest.mark.parametrize("step", [1, 7, 60])
def test_maps_in_stripes_shrink_as_the_whole(after: tuple[int, int], step: int) -> None:
    maps = np.random.default_rng(0).random((2, 60, 90)).astype(np.float32)
    shrunk = RunningShrink(2, (60, 90), after)
    for first in range(0, 60, step):
        rows = slice(first, min(first + step, 60))
        shrunk.add(rows, maps[:, rows])
    np.testing.assert_allclose(shrunk.maps, shrink(maps, after), atol=1e-5)
