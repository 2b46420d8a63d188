"""Labels and confidence from stripes equal those from the probabilities of the whole photo."""

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from wsss.config.labels import CrfConfig
from wsss.labels.prediction import Prediction, candidates, label_maps
from wsss.labels.striped import striped_labels

SIZE = (60, 90)


@pytest.fixture
def scene() -> tuple[np.ndarray, np.ndarray]:
    """A photo and probabilities of five labels, one of which is nowhere noticeable."""
    random = np.random.default_rng(0)
    coarse = random.normal(0, 3, (5, 4, 6)).astype(np.float32)
    coarse[3] = -9
    logits = np.stack([cv2.resize(plane, SIZE[::-1]) for plane in coarse])
    probs = torch.from_numpy(logits).softmax(0).numpy()
    colours = random.integers(0, 256, (5, 3))
    photo = colours[probs.argmax(0)] + random.integers(-40, 40, (*SIZE, 3))
    return photo.clip(0, 255).astype(np.uint8), probs


def _stripes(probs: np.ndarray) -> Iterator[tuple[slice, Any]]:
    for first in range(0, SIZE[0], 7):
        rows = slice(first, min(first + 7, SIZE[0]))
        yield rows, torch.from_numpy(probs[:, rows])


def test_labels_and_confidence_are_those_of_the_arg_max(
    scene: tuple[np.ndarray, np.ndarray],
) -> None:
    photo, probs = scene
    labels, confidence = striped_labels(_stripes(probs), photo, 5, None)
    assert np.array_equal(labels, probs.argmax(0))
    assert np.array_equal(confidence, probs.max(0))


@pytest.mark.parametrize("long_side", [None, 90, 50])
def test_a_crf_gives_the_labels_that_it_gives_for_the_whole(
    scene: tuple[np.ndarray, np.ndarray], long_side: int | None
) -> None:
    photo, probs = scene
    crf = CrfConfig(long_side=long_side, iterations=3)
    labels, confidence = striped_labels(_stripes(probs), photo, 5, crf)
    whole = label_maps(Prediction(photo, {"label": candidates(probs, "candidates")}), crf)
    assert (labels == whole["label_crf"]).mean() > 0.999
    assert (labels != probs.argmax(0)).any()
    expected = np.take_along_axis(probs, labels[None].astype(np.intp), axis=0)[0]
    np.testing.assert_allclose(confidence, expected, atol=0.2 if long_side == 50 else 0)
