"""Which labels of a prediction enter its CRF; it returns them under their numbers."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from wsss.config.load import from_mapping
from wsss.labels.crf import dense_crf
from wsss.labels.prediction import Prediction, candidates, label_maps
from wsss.labels.upsample import upsample


def example() -> tuple[np.ndarray, np.ndarray]:
    """A photo of two halves; labels 2 and 5 share it, with noise that a CRF removes."""
    random = np.random.default_rng(0)
    photo = np.full((24, 32, 3), 30, np.uint8)
    photo[:, 16:] = 220
    probabilities = np.full((7, 24, 32), 0.01, np.float32)
    probabilities[2, :, :16] = 0.95
    probabilities[5, :, 16:] = 0.95
    noisy = random.random((24, 32)) < 0.1
    probabilities[2][noisy], probabilities[5][noisy] = 0.5, 0.45
    return photo, probabilities


def test_candidates_are_the_noticeable_labels() -> None:
    _, probabilities = example()
    actual = candidates(probabilities, "candidates")
    assert actual.ids == (2, 5)
    np.testing.assert_array_equal(actual.probabilities, probabilities[[2, 5]])
    np.testing.assert_array_equal(actual.labels, probabilities.argmax(axis=0))


def test_a_winner_is_a_candidate_however_unsure() -> None:
    probabilities = np.full((20, 4, 4), 0.05, np.float32)
    probabilities[7] = 0.06
    assert candidates(probabilities, "candidates").ids == (7,)


def scattered() -> tuple[np.ndarray, np.ndarray]:
    """A grey photo; label 0 is the second best everywhere, each of the others the best somewhere.

    Label 1 is noticeable and never the best.
    """
    probabilities = np.full((12, 24, 32), 0.01, np.float32)
    probabilities[0], probabilities[1] = 0.095, 0.09
    probabilities[1, 0, 0] = 0.11
    best = 2 + np.random.default_rng(0).integers(0, 10, (24, 32))
    np.put_along_axis(probabilities, best[None], 0.12, axis=0)
    return np.full((24, 32, 3), 90, np.uint8), probabilities


@pytest.mark.parametrize(
    ("which", "ids"),
    [("all", range(12)), ("candidates", range(1, 12)), ("winners", range(2, 12))],
)
def test_the_crf_chooses_among_the_labels_that_enter(which: Any, ids: range) -> None:
    photo, probabilities = scattered()
    selected = candidates(probabilities, which)
    assert selected.ids == tuple(ids)
    crf = from_mapping({}).masks.crf
    labels = label_maps(Prediction(photo, {"single": selected}), crf)["single_crf"]
    posterior = dense_crf(probabilities[list(ids)], photo, crf)
    np.testing.assert_array_equal(labels, np.array(ids)[posterior.argmax(axis=0)])
    # What is the second best everywhere wins, if it enters.
    assert (labels == ids[0]).mean() > 0.9 or which == "winners"


def test_published_predictions_give_the_crf_every_label() -> None:
    for variant, which in (("published", "all"), ("corrected", "candidates")):
        config = from_mapping({"variant": variant})
        assert (config.infer.crf_labels, config.predict.crf_labels) == (which, which)


def test_the_crf_keeps_label_numbers() -> None:
    photo, probabilities = example()
    crf = from_mapping({}).masks.crf
    prediction = Prediction(photo, {"single": candidates(probabilities, "candidates")})
    assert set(label_maps(prediction, None)) == {"single"}
    maps = label_maps(prediction, crf)
    assert (maps["single"] != maps["single_crf"]).any()
    assert (maps["single_crf"][:, :16] == 2).all()
    assert (maps["single_crf"][:, 16:] == 5).all()


def test_the_crf_of_a_large_photo_is_bounded() -> None:
    photo, probabilities = example()
    large = photo.repeat(8, axis=0).repeat(8, axis=1)
    size = (large.shape[0], large.shape[1])
    prediction = Prediction(large, {"single": candidates(upsample(probabilities, size), "all")})
    crf = from_mapping({"masks": {"crf": {"long_side": 32}}}).masks.crf
    labels = label_maps(prediction, crf)["single_crf"]
    assert labels.shape == size
    border = 8 * 16
    assert (labels[:, : border - 8] == 2).all()
    assert (labels[:, border + 8 :] == 5).all()


def test_worker_processes_do_not_load_torch() -> None:
    code = "import sys, wsss.labels.prediction; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
