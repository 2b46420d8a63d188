"""The background rule."""

import numpy as np
import pytest

from wsss.config.labels import BackgroundConfig
from wsss.labels.background import background_score, with_background

POWER, CONSTANT = "power", "constant"


@pytest.mark.parametrize("value", [0.5, 1.0, 2.0, 7.5])
def test_power_rule(value: float) -> None:
    largest = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    actual = background_score(largest, BackgroundConfig(rule=POWER, value=value))
    expected = [[(1 - float(x)) ** value for x in row] for row in largest]
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    assert actual.dtype == np.float32


def test_constant_rule_is_a_threshold() -> None:
    scores = np.float32([[[0.1, 0.3, 0.31, 1.0]], [[0.2, 0.1, 0.5, 0.2]]])
    config = BackgroundConfig(rule=CONSTANT, value=0.3)
    assert with_background(scores, config).argmax(0).tolist() == [[0, 0, 2, 1]]  # a tie at 0.3


def test_power_rule_stays_finite_above_one() -> None:
    largest = np.float32([[1.0, 1.0001]])
    actual = background_score(largest, BackgroundConfig(rule=POWER, value=0.5))
    np.testing.assert_array_equal(actual, 0)


def test_power_one_is_half_way() -> None:
    scores = np.float32([[[0.49, 0.5, 0.51]]])
    assert with_background(scores, BackgroundConfig()).argmax(0).tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("rule", [POWER, CONSTANT])
@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_without_classes_all_is_background(rule: str, kind: type) -> None:
    config = BackgroundConfig.model_validate({"rule": rule, "value": 0.2})
    stack = with_background(np.zeros((0, 3, 5), kind), config)
    assert stack.shape == (1, 3, 5)
    assert stack.dtype == kind
    assert (stack.argmax(0) == 0).all()


def test_half_precision_stays_half() -> None:
    scores = np.random.default_rng(0).random((2, 4, 4)).astype(np.float16)
    stack = with_background(scores, BackgroundConfig())
    assert stack.dtype == np.float16
    np.testing.assert_array_equal(stack[0], np.float16(1) - scores.max(0))
    np.testing.assert_array_equal(stack[1:], scores)
