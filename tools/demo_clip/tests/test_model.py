"""The small CLIP on any grid, and the measure of what it finds."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tools.demo_clip.evaluate import average_precision
from tools.demo_clip.model import build, encode_image


def test_other_grids_than_the_square_one() -> None:
    whole, patches = encode_image(build(), torch.rand(1, 3, 96, 144))
    assert whole.shape == patches.shape == (1, 64)


def test_missing_weights_say_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"tools\.demo_clip pretrain"):
        build(tmp_path / "none.safetensors")


def test_average_precision() -> None:
    truth = np.array([True, False, True, False])
    assert average_precision(np.array([4.0, 3, 2, 1]), truth) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(np.array([4.0, 1, 3, 2]), truth) == pytest.approx(1)
    assert math.isnan(average_precision(np.ones(2), np.zeros(2, dtype=bool)))
