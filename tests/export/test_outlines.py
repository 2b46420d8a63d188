"""Outlines of masks with many holes: what is filled, and the plain rule as the reference."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pytest
from scipy import spatial

from wsss.export import outlines as module
from wsss.export.cut_open import cut_open
from wsss.export.outlines import at_edges, at_pixels, drawn_by_centres, drawn_by_touch, outlines


def cut_open_plainly(outer: np.ndarray, holes: Sequence[np.ndarray]) -> np.ndarray:
    """The rule of `cut_open` word for word: all distances of all vertices so far."""
    for hole in holes:
        distances = np.abs(outer[:, None] - hole[None]).sum(axis=2)
        start, first = np.unravel_index(int(distances.argmin()), distances.shape)
        around = np.roll(hole, -first, axis=0)
        outer = np.concatenate([outer[: start + 1], around, around[:1], outer[start:]])
    return outer


def masks() -> list[np.ndarray]:
    """Single pixels and larger holes, holes with parts that have holes, thin walls, rows."""
    random = np.random.default_rng(4)
    sparse = [random.random((45, 60)) >= share for share in (0.01, 0.1, 0.3, 0.5)]
    noise = random.standard_normal((4, 60, 50))
    smooth = [
        cv2.GaussianBlur(plane, (0, 0), s) > 0 for plane, s in zip(noise, (1, 2, 3, 4), strict=True)
    ]
    y, x = np.mgrid[:60, :60]
    nested = [np.hypot(y - 30, x - 28) // width % 2 == 0 for width in (2, 5)]
    nested.append((np.hypot(y - 30, x - 28) // 7 % 2 == 0) & (random.random((60, 60)) > 0.1))
    row = np.ones((5, 240), bool)
    row[2, 3:-3:3] = False
    return [mask.astype(np.uint8) for mask in (*sparse, *smooth, *nested, row)]


@pytest.mark.parametrize("tolerance", [0.0, 1.0])
def test_what_is_filled_is_that_of_the_plain_rule(
    monkeypatch: pytest.MonkeyPatch, tolerance: float
) -> None:
    for mask in masks():
        quick = outlines(mask, tolerance)
        with monkeypatch.context() as patch:
            patch.setattr(module, "cut_open", cut_open_plainly)
            plain = outlines(mask, tolerance)
        assert len(quick) == len(plain)
        for one, other in zip(quick, plain, strict=True):
            np.testing.assert_array_equal(one, other)
        for vertices, drawn in ((at_edges, drawn_by_centres), (at_pixels, drawn_by_touch)):
            one, other = (drawn(list(map(vertices, o)), *mask.shape) for o in (quick, plain))
            np.testing.assert_array_equal(one, other)
        if not tolerance:
            edges = [at_edges(outline) for outline in quick]
            np.testing.assert_array_equal(drawn_by_centres(edges, *mask.shape), mask)


def test_vertices_at_one_place() -> None:
    """The first of the outline is taken, wherever it came from."""
    random = np.random.default_rng(2)
    for _ in range(60):
        outer = random.integers(0, 6, (9, 2), np.int32)
        holes = [random.integers(0, 6, (random.integers(3, 6), 2), np.int32) for _ in range(40)]
        np.testing.assert_array_equal(cut_open(outer, holes), cut_open_plainly(outer, holes))


def test_the_work_does_not_grow_with_vertices_times_holes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in the vertices that trees are built of; each is built into some of them."""
    built = []

    class Counted(spatial.cKDTree):  # type: ignore[misc]
        def __init__(self, points: Any) -> None:
            super().__init__(points)
            built.append(len(points))

    monkeypatch.setattr(spatial, "cKDTree", Counted)
    mask = np.ones((120, 120), np.uint8)
    mask[1:-1:3, 1:-1:3] = 0
    (outline,) = outlines(mask, 0.0)
    assert len(built) == 1 + 40 * 40
    assert sum(built) < 40 * len(outline)  # the plain rule compares a hole with half of them
