"""From scores to label and confidence, and the ignore band."""

import numpy as np
import pytest

from wsss.config.labels import MasksConfig
from wsss.labels.ignore import ignore_band
from wsss.labels.pseudo import pseudo_label


def masks(*, crf: bool, **options: object) -> MasksConfig:
    section = {"enabled": crf, "image": "raw", "unary": "float32"}
    return MasksConfig.model_validate({"crf": section} | options)


def noise(classes: int, height: int = 8, width: int = 11) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(classes)
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return generator.random((classes, height, width), np.float32), image


def test_without_crf_confidence_is_the_share_of_the_winner() -> None:
    scores, image = noise(3)
    label, confidence = pseudo_label(scores, [7, 2, 253], image, masks(crf=False))
    for row in range(8):
        for column in range(11):
            stack = [1 - scores[:, row, column].max(), *scores[:, row, column]]
            winner = int(np.argmax(stack))
            assert label[row, column] == [0, 8, 3, 254][winner]
            assert confidence[row, column] == pytest.approx(max(stack) / sum(stack))


def test_without_any_score_the_confidence_is_zero() -> None:
    _, image = noise(1)
    zeros = np.zeros((1, 8, 11), np.float32)
    label, confidence = pseudo_label(zeros, [0], image, masks(crf=False), zeros[0])
    assert not label.any()
    assert not confidence.any()


@pytest.mark.parametrize("crf", [False, True])
def test_a_separate_background_replaces_the_rule(crf: bool) -> None:
    scores, image = noise(3)
    share = np.concatenate([np.full((1, 8, 11), 0.7, np.float32), scores])
    share /= share.sum(0)
    config = masks(crf=crf, background={"rule": "constant", "value": 0.99})
    label, _ = pseudo_label(share[1:], [0, 1, 2], image, config, share[0])
    if not crf:
        np.testing.assert_array_equal(label, share.argmax(0))
    other, _ = pseudo_label(share[1:], [0, 1, 2], image, config)
    assert (label != other).any()


def test_without_crf_equals_a_crf_whose_kernels_weigh_nothing() -> None:
    scores, image = noise(2)
    label, confidence = pseudo_label(scores, [0, 1], image, masks(crf=False))
    idle = masks(crf=True)
    crf = idle.crf.model_copy(update={"gaussian_compat": 0.0, "bilateral_compat": 0.0})
    other = pseudo_label(scores, [0, 1], image, idle.model_copy(update={"crf": crf}))
    np.testing.assert_array_equal(label, other[0])
    np.testing.assert_allclose(confidence, other[1], atol=1e-5)


@pytest.mark.parametrize("crf", [True, False])
def test_absent_classes_get_no_pixel(crf: bool) -> None:
    scores, image = noise(2)
    label, confidence = pseudo_label(scores, [4, 9], image, masks(crf=crf))
    assert set(np.unique(label)) <= {0, 5, 10}
    assert confidence.dtype == np.float32
    assert confidence.min() >= 1 / 3
    assert confidence.max() <= 1 + 1e-6


@pytest.mark.parametrize("crf", [True, False])
def test_order_of_the_classes_changes_nothing(crf: bool) -> None:
    scores, image = noise(3)
    label, confidence = pseudo_label(scores, [4, 9, 1], image, masks(crf=crf))
    turned = pseudo_label(scores[::-1], [1, 9, 4], image, masks(crf=crf))
    np.testing.assert_array_equal(label, turned[0])
    np.testing.assert_allclose(confidence, turned[1], atol=1e-5)


@pytest.mark.parametrize("crf", [True, False])
def test_no_class_is_background_of_which_nothing_is_known(crf: bool) -> None:
    scores, image = noise(0)
    config = masks(crf=crf)
    label, confidence = pseudo_label(scores, [], image, config)
    assert label.shape == confidence.shape == (8, 11)
    assert not label.any()
    assert (ignore_band(label, confidence, config.min_confidence) == 255).all()


@pytest.mark.parametrize("classes", [[1], [1, 2, 3], [1, 254], [-1, 3]])
def test_classes_that_do_not_fit_are_refused(classes: list[int]) -> None:
    scores, image = noise(2)
    with pytest.raises(ValueError, match="class"):
        pseudo_label(scores, classes, image, masks(crf=False))


def test_ignore_band_is_strictly_below() -> None:
    label = np.uint8([[0, 3, 3, 0]])
    confidence = np.float32([[0.95, 0.9499, 1.0, 0.2]])
    assert ignore_band(label, confidence, 0.95).tolist() == [[0, 255, 3, 255]]
    np.testing.assert_array_equal(ignore_band(label, confidence, 0.0), label)
    assert label.tolist() == [[0, 3, 3, 0]]


@pytest.mark.parametrize("par", [False, True])
def test_a_large_photo_is_labelled_at_a_bounded_size(par: bool) -> None:
    """As its smaller copy, whose posterior is then enlarged."""
    scores, _ = noise(2, 6, 8)
    small = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    large = small.repeat(4, axis=0).repeat(4, axis=1)
    crf = {"image": "raw", "unary": "float32", "gaussian_sxy": 0.25, "bilateral_sxy": 16.75}
    copy = MasksConfig.model_validate({"crf": crf, "par": par})
    scaled = crf | {"gaussian_sxy": 1.0, "bilateral_sxy": 67.0, "long_side": 40}
    photo = MasksConfig.model_validate({"crf": scaled, "par": par})
    expected, _ = pseudo_label(scores, [4, 9], small, copy)
    label, confidence = pseudo_label(scores, [4, 9], large, photo)
    assert label.shape == confidence.shape == (120, 160)
    centres = (slice(2, None, 4), slice(2, None, 4))
    assert (label[centres] == expected).mean() > 0.95
    assert len(np.unique(expected)) == 3


def test_settings_of_a_crf_that_does_not_run_are_not_judged() -> None:
    scores, image = noise(2, 20, 900)
    crf = {"enabled": False, "gaussian_sxy": 0.01, "long_side": 450}
    config = MasksConfig.model_validate({"crf": crf, "par": True})
    label, _ = pseudo_label(scores, [0, 1], image, config)
    assert label.shape == (20, 900)
    enabled = MasksConfig.model_validate({"crf": crf | {"enabled": True}})
    with pytest.raises(ValueError, match="gaussian_sxy is 0"):
        pseudo_label(scores, [0, 1], image, enabled)
