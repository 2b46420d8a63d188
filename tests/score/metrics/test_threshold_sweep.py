import numpy as np
import pytest

from wsss.config.score import ClassMean
from wsss.score.metrics.confusion import Confusion, averaged, mean_defined, metrics_of
from wsss.score.metrics.threshold_sweep import THRESHOLDS, Sweep

LABELS = 5


def images(count: int = 5) -> list[tuple[np.ndarray, np.ndarray, list[int]]]:
    """Truth, class scores and classes; many scores lie exactly on a threshold."""
    rng = np.random.default_rng(1)
    cases = []
    for index in range(count):
        classes = sorted(rng.permutation(LABELS - 1)[: index % 4].tolist())
        truth = rng.integers(0, LABELS, (9, 11), dtype=np.uint8)
        truth[0] = 255
        scores = rng.random((len(classes), 9, 11), dtype=np.float32)
        scores[:, :5] = (np.round(scores[:, :5], 2)).astype(np.float32)
        scores[:, 8, 0], scores[:, 8, 1] = 0.0, 1.0
        cases.append((truth, scores, classes))
    return cases


def swept(parts: list[tuple[np.ndarray, np.ndarray, list[int]]]) -> Sweep:
    sweep = Sweep(LABELS)
    for truth, scores, classes in parts:
        largest = scores.max(0) if classes else np.zeros(truth.shape, np.float32)
        winner = scores.argmax(0) if classes else np.zeros(truth.shape)
        sweep.add(truth, largest, winner.astype(np.uint8), classes)
    return sweep


def brute_force(background) -> np.ndarray:
    """The arg max of [background, classes], image by image."""
    confusion = Confusion(LABELS)
    for truth, scores, classes in images():
        largest = scores.max(0) if classes else np.zeros(truth.shape, np.float32)
        stack = np.concatenate([background(largest)[None], scores])
        labels = np.array([0, *(c + 1 for c in classes)], np.uint8)
        confusion.add(truth, labels[stack.argmax(0)])
    return confusion.matrix


def test_equals_brute_force_at_each_threshold() -> None:
    sweep = swept(images())
    for position, threshold in enumerate(THRESHOLDS):
        expected = brute_force(lambda m, t=threshold: np.full_like(m, t))
        np.testing.assert_array_equal(sweep.matrix(position), expected, err_msg=str(threshold))


def test_best_is_the_maximum_and_the_lowest_of_equals() -> None:
    sweep = swept(images())
    all_miou = [metrics_of(sweep.matrix(position)).miou for position in range(len(THRESHOLDS))]
    threshold, matrix = sweep.best(sweep.curve())
    assert threshold == pytest.approx(THRESHOLDS[int(np.argmax(all_miou))])
    assert metrics_of(matrix).miou == max(all_miou)
    among = [np.mean(metrics_of(sweep.matrix(p)).iou[[1, 3]]) for p in range(len(THRESHOLDS))]
    assert sweep.best(sweep.curve([1, 3]))[0] == pytest.approx(THRESHOLDS[int(np.argmax(among))])


@pytest.mark.parametrize("class_mean", ["union", "truth"])
@pytest.mark.parametrize("among", [[], [0, 2], [3]])
def test_the_curve_is_the_mean_at_each_threshold(class_mean: ClassMean, among: list[int]) -> None:
    sweep = swept(images())
    sweep.counts[2] = 0  # a label that the truth does not hold, but predictions do
    expected = []
    for position in range(len(THRESHOLDS)):
        matrix = sweep.matrix(position)
        iou = averaged(metrics_of(matrix).iou, matrix.sum(axis=1), class_mean)
        expected.append(mean_defined(iou[among] if among else iou))
    assert len(set(expected)) > 10
    assert sweep.curve(among, class_mean) == expected


def test_parts_add_up() -> None:
    first, second = swept(images()[:2]), swept(images()[2:])
    first.merge(second)
    np.testing.assert_array_equal(first.counts, swept(images()).counts)


@pytest.mark.parametrize("threshold", [0.105, 0.4567, 0.873])
def test_power_rule_is_a_threshold(threshold: float) -> None:
    """`t = (1 - t)^a`; the thresholds lie between the scores, so that rounding plays no part."""
    power = np.float32(np.log(threshold) / np.log1p(-threshold))
    by_power = brute_force(lambda m: (1 - m) ** power)
    np.testing.assert_array_equal(by_power, brute_force(lambda m: np.full_like(m, threshold)))


def test_nothing_but_void_has_a_best_threshold() -> None:
    sweep = Sweep(LABELS)
    sweep.add(
        np.full((2, 2), 255, np.uint8),
        np.zeros((2, 2), np.float32),
        np.zeros((2, 2), np.uint8),
        [1],
    )
    assert sweep.best(sweep.curve())[0] == 0.0


def test_label_out_of_range_is_an_error() -> None:
    with pytest.raises(ValueError, match="truth holds label 9"):
        Sweep(3).add(
            np.full((1, 1), 9, np.uint8),
            np.zeros((1, 1), np.float32),
            np.zeros((1, 1), np.uint8),
            [1],
        )
