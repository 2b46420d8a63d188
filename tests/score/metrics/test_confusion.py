import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss._compat.torchvision_ops import ensure_torchvision_imports
from wsss.score.metrics.confusion import Confusion


def maps(seed: int, labels: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, labels, (13, 17), dtype=np.uint8)
    guess = rng.integers(0, labels, truth.shape, dtype=np.uint8)
    prediction = np.where(rng.random(truth.shape) < 0.6, truth, guess)
    truth[rng.random(truth.shape) < 0.1] = 255
    return truth, prediction


def brute_force(truth: np.ndarray, prediction: np.ndarray, labels: int) -> np.ndarray:
    matrix = np.zeros((labels, labels), int)
    for t, p in zip(truth.ravel(), prediction.ravel(), strict=True):
        if t != 255 and p != 255:
            matrix[t, p] += 1
    return matrix


@pytest.mark.parametrize("seed", range(3))
def test_equals_torchmetrics(seed: int) -> None:
    ensure_torchvision_imports()
    # Three seconds, which processes without this test save.
    from torchmetrics.functional import classification as reference

    truth, prediction = maps(seed)
    confusion = Confusion(5)
    confusion.add(truth, prediction)
    metrics = confusion.metrics()
    pair = torch.tensor(prediction).long(), torch.tensor(truth).long()

    def expected(name: str, average: str) -> np.ndarray:
        function = getattr(reference, f"multiclass_{name}")
        return function(*pair, num_classes=5, average=average, ignore_index=255).numpy()

    np.testing.assert_allclose(metrics.iou, expected("jaccard_index", "none"), rtol=1e-6)
    np.testing.assert_allclose(metrics.precision, expected("precision", "none"), rtol=1e-6)
    np.testing.assert_allclose(metrics.recall, expected("recall", "none"), rtol=1e-6)
    assert metrics.miou == pytest.approx(float(expected("jaccard_index", "macro")))
    assert metrics.pixel_accuracy == pytest.approx(float(expected("accuracy", "micro")))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 7))
def test_equals_brute_force_and_parts_add_up(seed: int, labels: int) -> None:
    whole, first, second = Confusion(labels), Confusion(labels), Confusion(labels)
    expected = np.zeros((labels, labels), int)
    for index in range(4):
        truth, prediction = maps(seed + index, labels)
        whole.add(truth, prediction)
        (first if index % 2 else second).add(truth, prediction)
        expected += brute_force(truth, prediction, labels)
    first.merge(second)
    np.testing.assert_array_equal(whole.matrix, expected)
    np.testing.assert_array_equal(first.matrix, expected)
    assert first.pixels == whole.pixels
    assert whole.matrix.dtype == np.int64


def test_means_run_over_the_labels_that_have_the_number() -> None:
    confusion = Confusion(5)
    truth = np.array([[0, 0, 1, 1]], np.uint8)
    confusion.add(truth, np.array([[0, 0, 1, 3]], np.uint8))
    metrics = confusion.metrics()
    np.testing.assert_array_equal(metrics.iou, [1.0, 0.5, np.nan, 0.0, np.nan])
    np.testing.assert_array_equal(metrics.precision, [1.0, 1.0, np.nan, 0.0, np.nan])
    np.testing.assert_array_equal(metrics.recall, [1.0, 0.5, np.nan, np.nan, np.nan])
    assert metrics.miou == pytest.approx(0.5)  # a label that is only predicted counts as 0
    assert metrics.mean_precision == pytest.approx(2 / 3)
    assert metrics.mean_recall == pytest.approx(0.75)
    assert metrics.pixel_accuracy == pytest.approx(0.75)


def test_empty_matrix_has_no_numbers() -> None:
    confusion = Confusion(3)
    confusion.add(np.full((2, 2), 255, np.uint8), np.zeros((2, 2), np.uint8))
    metrics = confusion.metrics()
    assert np.isnan([metrics.miou, metrics.pixel_accuracy, metrics.mean_recall]).all()
    assert np.isnan(Confusion(3).coverage)


def test_ignore_band_is_counted_apart() -> None:
    truth = np.array([[0, 1, 1, 255], [0, 0, 1, 255]], np.uint8)
    prediction = np.array([[0, 1, 255, 255], [1, 0, 255, 0]], np.uint8)
    confusion = Confusion(2, ignore_band=True)
    confusion.add(truth, prediction)
    assert confusion.coverage == pytest.approx(5 / 8)  # of all pixels, void truth included
    assert confusion.metrics().pixel_accuracy == pytest.approx(3 / 4)
    np.testing.assert_array_equal(confusion.matrix, brute_force(truth, prediction, 2))


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        ([[0, 1]], [[0, 255]], "255 .*ignore band"),
        ([[0, 1]], [[0, 7]], "prediction holds label 7; expected 0 … 2"),
        ([[0, 9]], [[0, 0]], "truth holds label 9; expected 0 … 2"),
        ([[0, 9, 1]], [[0, 0]], "prediction is 2 x 1 pixels, the truth is 3 x 1"),
    ],
)
def test_invalid_labels(truth: list[list[int]], prediction: list[list[int]], message: str) -> None:
    confusion = Confusion(3)
    with pytest.raises(ValueError, match=message):
        confusion.add(np.array(truth, np.uint8), np.array(prediction, np.uint8))
    assert confusion.matrix.sum() == 0


def test_labels_are_whole_numbers_from_zero() -> None:
    confusion, good, bad = Confusion(3), np.zeros((1, 2), np.uint8), np.array([[-1, 0]])
    for truth, prediction in ((good, bad), (bad, good)):
        with pytest.raises(ValueError, match="holds label -1; expected 0 … 2"):
            confusion.add(truth, prediction)
    with pytest.raises(ValueError, match="the truth is of type float64, expected whole numbers"):
        confusion._check("truth", np.zeros((1, 2)))
    confusion.add(good.astype(np.int64), good)
    assert confusion.matrix[0, 0] == 2


def test_void_truth_hides_a_prediction_but_not_a_bad_label() -> None:
    confusion = Confusion(2)
    with pytest.raises(ValueError, match="label 200"):
        confusion.add(np.array([[255]], np.uint8), np.array([[200]], np.uint8))
    with pytest.raises(ValueError, match="merge"):
        confusion.merge(Confusion(3))
