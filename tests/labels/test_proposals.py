"""The rule of mask proposals against a loop over pixels."""

import numpy as np
import pytest

from wsss.config.labels import BackgroundConfig, CrfConfig, MasksConfig
from wsss.labels.proposals import Proposal, label_means, relabel
from wsss.labels.pseudo import pseudo_label
from wsss.labels.upsample import upsample, winners


def brute_force(
    posterior: np.ndarray, masks: list[np.ndarray], threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Each pixel asks all proposals: the smallest that has a label, of equal ones the last."""
    labels, height, width = posterior.shape
    index = np.zeros((height, width), int)
    confidence = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            own = list(posterior[:, y, x])
            index[y, x], confidence[y, x] = own.index(max(own)), max(own)
            smallest = None
            for mask in masks:
                if not mask[y, x]:
                    continue
                means = [float(posterior[k][mask].mean(dtype=np.float64)) for k in range(labels)]
                label = means.index(max(means))
                if means[label] >= threshold and (smallest is None or mask.sum() <= smallest):
                    smallest = mask.sum()
                    index[y, x] = label
                    confidence[y, x] = max(own[label], means[label])
    return index, confidence


def posterior_and_masks(
    seed: int, size: tuple[int, int]
) -> tuple[np.ndarray, list[np.ndarray], list[Proposal]]:
    generator = np.random.default_rng(seed)
    raw = generator.random((4, *size)).astype(np.float32) ** 4
    masks = []
    for _ in range(9):
        (top, bottom), (left, right) = (sorted(generator.integers(0, side + 1, 2)) for side in size)
        mask = np.zeros(size, bool)
        mask[top:bottom, left:right] = generator.random((bottom - top, right - left)) < 0.8
        masks.append(mask)
    masks.append(masks[3].copy())  # of equal area
    return raw / raw.sum(0), masks, [Proposal.of(mask) for mask in masks]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.45])
def test_rule_equals_the_loop_over_pixels(seed: int, threshold: float) -> None:
    posterior, masks, proposals = posterior_and_masks(seed, (13, 17))
    index, confidence = relabel(*winners(posterior, (13, 17)), posterior, proposals, threshold)
    expected, sure = brute_force(posterior, masks, threshold)
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_allclose(confidence, sure, rtol=1e-6)


def test_a_posterior_of_another_size_is_enlarged() -> None:
    posterior, masks, proposals = posterior_and_masks(1, (12, 18))
    small = posterior[:, ::2, ::3]
    large = upsample(small, (12, 18))
    index, confidence = relabel(*winners(small, (12, 18)), small, proposals, 0.3)
    expected, sure = brute_force(large, masks, 0.3)
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_allclose(confidence, sure, rtol=1e-6)


def test_an_empty_mask_and_no_proposal_change_nothing() -> None:
    posterior, _, _ = posterior_and_masks(2, (5, 6))
    empty = Proposal.of(np.zeros((5, 6), bool))
    assert empty.area == 0
    assert (label_means(posterior, [empty], (5, 6)) == 0).all()
    index, confidence = winners(posterior, (5, 6))
    for proposals in ([], [empty]):
        same = relabel(index, confidence, posterior, proposals, 0.0)
        np.testing.assert_array_equal(same[0], index)
        np.testing.assert_array_equal(same[1], confidence)


def test_pseudo_labels_follow_the_edge_of_a_proposal() -> None:
    """A CAM that covers half of an object and a little beside it becomes the object."""
    scores = np.zeros((1, 20, 20), np.float32)
    scores[0, 4:12, 4:11] = 0.9
    scores[0, 4:12, 11:14] = 0.55  # leaks over the right edge
    thing = np.zeros((20, 20), bool)
    thing[4:14, 4:11] = True
    config = MasksConfig(
        background=BackgroundConfig(rule="constant", value=0.5), crf=CrfConfig(enabled=False)
    )
    photo = np.zeros((20, 20, 3), np.uint8)
    before, _ = pseudo_label(scores, [7], photo, config)
    proposals = [Proposal.of(thing), Proposal.of(~thing)]
    after, confidence = pseudo_label(scores, [7], photo, config, None, proposals)
    assert (before == 8).sum() == 8 * 10
    np.testing.assert_array_equal(after, np.where(thing, 8, 0))
    assert confidence.min() >= 0.5
