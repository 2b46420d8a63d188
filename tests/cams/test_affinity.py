"""The affinity against its formulas with explicit matrices, and boxes against OpenCV's contours."""

import cv2
import numpy as np
import pytest
import torch

from wsss.cams.affinity import balance, propagate_maps
from wsss.cams.boxes import BoxEdge, box_masks
from wsss.cams.maps import average_to_grid, resize_maps, scale_maps


def explicit_transition(attention: torch.Tensor, rounds: int, power: int) -> torch.Tensor:
    """Eq. 14-16 and 19 of docs/methods/clip-es.md with the matrices built."""
    D = attention[1:, 1:].double()
    for _ in range(rounds):
        D = D / D.sum(0, keepdim=True)
        D = D / D.sum(1, keepdim=True)
    return torch.linalg.matrix_power((D + D.T) / 2, power)


def contour_boxes(cam: np.ndarray, threshold: float, edge: BoxEdge) -> np.ndarray:
    """Eq. 18 of docs/methods/clip-es.md: boxes of all contours, clamped as published or not."""
    levels = (cam * 255).astype(np.uint8)
    strong = (levels > int(threshold * levels.max())).astype(np.uint8)
    contours, _ = cv2.findContours(strong, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    mask = np.zeros(cam.shape, bool)
    height, width = cam.shape
    for contour in contours:
        x, y, w, h = cv2.boundingRect(contour)
        right, bottom = x + w, y + h
        if edge == "exclusive":
            right, bottom = min(right, width - 1), min(bottom, height - 1)
        mask[y:bottom, x:right] = True
    return mask


@pytest.mark.parametrize(("rounds", "power"), [(1, 1), (3, 2), (5, 3)])
def test_spread_equals_explicit_matrices(rounds: int, power: int) -> None:
    attention = torch.softmax(2 * torch.randn(2, 13, 13), -1)
    maps = scale_maps(torch.rand(5, 3, 4))
    image_index = torch.tensor([0, 0, 0, 1, 1])
    affinity = balance(attention[:, 1:, 1:], rounds=rounds, power=power)
    actual = propagate_maps(affinity, maps, image_index, box_threshold=0.4, box_edge="inclusive")
    for row, image in enumerate(image_index.tolist()):
        gated = maps[row] * box_masks(maps[row : row + 1], 0.4)[0]
        expected = explicit_transition(attention[image], rounds, power) @ gated.flatten().double()
        torch.testing.assert_close(actual[row].flatten().double(), expected, rtol=1e-4, atol=1e-6)


def test_sources_are_gated_by_boxes_of_the_whole_maps() -> None:
    torch.manual_seed(0)
    attention = torch.softmax(2 * torch.randn(1, 12, 12), -1)
    maps, sources = scale_maps(torch.rand(2, 2, 6)), torch.rand(2, 2, 6)
    rows, affinity = torch.zeros(2, dtype=torch.long), balance(attention)
    gated = propagate_maps(affinity, maps, rows, box_threshold=0.7, sources=sources)
    open_ = propagate_maps(affinity, maps, rows, box_threshold=None, sources=sources)
    boxes = box_masks(maps, 0.7)
    assert not torch.equal(boxes, box_masks(maps * sources, 0.7))
    for actual, by_hand in ((gated, maps * boxes * sources), (open_, maps * sources)):
        expected = affinity.propagate(by_hand.flatten(1).T[None])[0].T
        torch.testing.assert_close(actual.flatten(1), expected)


def test_normalised_matrix_ends_row_stochastic() -> None:
    affinity = balance(torch.softmax(torch.randn(1, 30, 30), -1)[:, 1:, 1:])
    torch.testing.assert_close(affinity.matrix().sum(-1), torch.ones(1, 29))


def test_patch_that_nothing_attends_to_stays_finite() -> None:
    attention = torch.zeros(1, 5, 5)
    attention[..., 1] = 1.0
    assert affinity_is_finite(attention)


def affinity_is_finite(attention: torch.Tensor) -> bool:
    return bool(balance(attention[:, 1:, 1:]).propagate(torch.ones(1, 4, 1)).isfinite().all())


@pytest.mark.parametrize("edge", ["inclusive", "exclusive"])
@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.7])
def test_boxes_equal_those_of_all_contours(edge: BoxEdge, threshold: float) -> None:
    random = np.random.default_rng(0)
    for index in range(40):
        cam = random.random((random.integers(1, 14), random.integers(1, 14))).astype(np.float32)
        if index % 2:
            cam = cv2.GaussianBlur(cam, (0, 0), 1.0)
        cam = (cam - cam.min()) / max(float(np.ptp(cam)), 1e-6)
        actual = box_masks(torch.from_numpy(cam)[None], threshold, edge)[0].numpy()
        np.testing.assert_array_equal(actual, contour_boxes(cam, threshold, edge))


def test_part_in_the_last_row_and_column_is_lost_only_as_published() -> None:
    cam = torch.zeros(1, 4, 4)
    cam[0, 3, 3] = 1.0
    assert box_masks(cam, 0.4, "inclusive").sum() == 1
    assert box_masks(cam, 0.4, "exclusive").sum() == 0


def test_boxes_of_maps_do_not_mix() -> None:
    maps = torch.zeros(2, 4, 4)
    maps[0, 0, 0] = maps[1, 2:, 2:] = 1.0
    masks = box_masks(maps, 0.4)
    assert masks[0].sum() == 1
    assert masks[1].sum() == 4


def test_scaling_of_constant_and_tiny_maps() -> None:
    maps = torch.stack(
        [torch.zeros(2, 2), torch.full((2, 2), 3.0), torch.tensor([[0, 1e-6], [2e-6, 0]])]
    )
    scaled = scale_maps(maps)
    assert scaled[:2].abs().max() == 0
    torch.testing.assert_close(scaled[2], torch.tensor([[0, 0.5], [1, 0]]))


def test_resizing_equals_opencv_and_averaging_keeps_the_mean() -> None:
    maps = torch.rand(2, 5, 7)
    actual = resize_maps(maps, (33, 41))
    for row in range(2):
        expected = cv2.resize(maps[row].numpy(), (41, 33), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(actual[row].numpy(), expected, atol=2e-6)
    large = torch.rand(1, 24, 16)
    torch.testing.assert_close(
        average_to_grid(large, (6, 4)), torch.nn.functional.avg_pool2d(large, 4)
    )
    uneven = average_to_grid(large, (7, 5))
    torch.testing.assert_close(uneven.mean(), large.mean())
