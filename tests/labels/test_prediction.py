"""The CRF receives only labels that can win, and returns them under their numbers."""

import subprocess
import sys

import numpy as np

from wsss.config.load import from_mapping
from wsss.labels.prediction import Prediction, candidates, label_maps


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
    actual = candidates(probabilities)
    assert actual.ids == (2, 5)
    np.testing.assert_array_equal(actual.probabilities, probabilities[[2, 5]])
    np.testing.assert_array_equal(actual.labels, probabilities.argmax(axis=0))


def test_a_winner_is_a_candidate_however_unsure() -> None:
    probabilities = np.full((20, 4, 4), 0.05, np.float32)
    probabilities[7] = 0.06
    assert candidates(probabilities).ids == (7,)


def test_the_crf_keeps_label_numbers() -> None:
    photo, probabilities = example()
    crf = from_mapping({}).masks.crf
    prediction = Prediction(photo, {"single": candidates(probabilities)})
    assert set(label_maps(prediction, None)) == {"single"}
    maps = label_maps(prediction, crf)
    assert (maps["single"] != maps["single_crf"]).any()
    assert (maps["single_crf"][:, :16] == 2).all()
    assert (maps["single_crf"][:, 16:] == 5).all()


def test_worker_processes_do_not_load_torch() -> None:
    code = "import sys, wsss.labels.prediction; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
