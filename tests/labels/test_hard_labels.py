"""Seeds: one threshold, two, powers, and images without tags."""

import numpy as np
import pytest

from wsss.config.labels import CrfConfig, SeedsConfig
from wsss.labels.hard_labels import hard_labels
from wsss.labels.ignore import IGNORED

SCORES = np.array([[[0.1, 0.3, 0.52, 0.9]], [[0.0, 0.45, 0.2, 0.8]]], np.float32)
IMAGE = np.zeros((1, 4, 3), np.uint8)


def _seed(**changes: object) -> tuple[list[int], list[int]]:
    actual = hard_labels(SCORES, (4, 2), IMAGE, SeedsConfig(**changes))
    return actual[0][0].tolist(), actual[1][0].tolist()


def test_one_value_labels_every_pixel() -> None:
    assert _seed(values=[0.4]) == ([0, 3, 5, 5], [0, 3, 5, 5])


def test_two_values_ignore_scores_in_between() -> None:
    label, train = _seed(values=[0.4, 0.6])
    assert label == [0, 0, 5, 5]  # under the mean, 0.5
    assert train == [0, IGNORED, IGNORED, 5]
    assert _seed(values=[0.6, 0.4]) == (label, train)


def test_powers_are_sorted_in_reverse() -> None:
    # (1 - 0.45)^1 = 0.55 > 0.45, (1 - 0.45)^4 = 0.09 < 0.45
    assert _seed(rule="power", values=[1.0, 4.0])[1] == [0, IGNORED, 5, 5]


def test_an_image_without_tags_teaches_nothing() -> None:
    none = np.zeros((0, 1, 4), np.float32)
    label, train = hard_labels(none, (), IMAGE, SeedsConfig())
    assert not label.any()
    assert (train == IGNORED).all()


def test_the_crf_moves_seeds_to_edges() -> None:
    image = np.zeros((8, 16, 3), np.uint8)
    image[:, 8:] = 255
    scores = np.full((1, 8, 16), 0.1, np.float32)
    scores[:, :, 8:] = 0.9
    scores[:, :, 8:10] = 0.45  # the CAM misses the edge
    crf = CrfConfig(bilateral_sxy=10, bilateral_srgb=5, image="raw", unary="float32")
    plain = hard_labels(
        scores,
        (0,),
        image,
        SeedsConfig(values=[0.5], crf=crf.model_copy(update={"enabled": False})),
    )
    drawn = hard_labels(scores, (0,), image, SeedsConfig(values=[0.5], crf=crf))
    assert not plain[1][:, 8].any()
    assert drawn[1][:, 8:].all()
    assert not drawn[1][:, :8].any()


def test_no_value_or_three_are_refused() -> None:
    for values in ([], [0.1, 0.2, 0.3]):
        with pytest.raises(ValueError, match="values"):
            SeedsConfig(values=values)
