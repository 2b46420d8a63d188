"""Stripes of a large photo: the probabilities of the whole photo, and no tensor of its size."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.retrain.small_networks import facts, small
from wsss.retrain import stripes
from wsss.retrain.rows import Logits, Resized
from wsss.retrain.segmenter import Segmenter

LABELS = 4
SIZE = (100, 140)
WINDOWS: dict[str, dict[str, Any]] = {
    "whole": {}, "windows": {"window": 64, "stride": 48}, "apart": {"window": 64},
}  # fmt: skip


class _Largest(TorchDispatchMode):
    """The largest tensor that an operation returns, views left out."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            sizes = (t.nbytes for t in tree_leaves(result) if isinstance(t, Tensor))
            self.bytes = max(self.bytes, *sizes, 0)
        return result


@contextmanager
def largest_tensor() -> Iterator[_Largest]:
    with _Largest() as mode:
        yield mode


@pytest.fixture
def photo() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 4)


@pytest.fixture
def _small_stripes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stripes, "_STRIPE_BYTES", 4 * LABELS * SIZE[1] * 2 * 7)


def segmenter(name: str, **changes: Any) -> Segmenter:
    network = small(name, crop=64)
    with torch.no_grad():
        network.decode_head.conv_seg.weight.mul_(100)  # decided, so that averages matter
    common = {"scales": (0.75, 1.0, 1.25), "average": "probabilities"}
    return Segmenter(network, facts(name, **common | changes), torch.device("cpu"))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("after", [(93, 141), (20, 31), (5, 9), (1, 3)])
def test_rows_of_a_resized_map_are_those_of_the_whole(
    after: tuple[int, int], align_corners: bool
) -> None:
    maps = torch.randn(1, 3, 20, 31)
    whole = F.interpolate(maps, after, mode="bilinear", align_corners=align_corners)
    resized = Resized(Logits(maps), after, align_corners=align_corners)
    for step in (1, 4, after[0]):
        rows = [
            resized.rows(first, min(first + step, after[0])) for first in range(0, after[0], step)
        ]
        torch.testing.assert_close(torch.cat(rows, 2), whole, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "windows"),
    [
        *(("segformer-b0", windows) for windows in WINDOWS),
        ("deeplabv1-resnet38", "apart"),  # aligns corners
        ("clip-vit", "windows"),
    ],
)
@pytest.mark.usefixtures("_small_stripes")
def test_stripes_are_the_probabilities_of_the_photo(
    photo: np.ndarray, name: str, windows: str
) -> None:
    net = segmenter(name, **WINDOWS[windows])
    expected = net.probabilities(photo[None])
    for protocol in ("single", "multi"):
        actual, ends = [], [0]
        for rows, probs in net.stripes(photo, multi=protocol == "multi"):
            assert rows.start == ends[-1]
            ends.append(rows.stop)
            actual.append(probs)
        assert len(actual) > 7
        torch.testing.assert_close(torch.cat(actual, 1), expected[protocol][0], rtol=0, atol=1e-4)
    assert expected["multi"].std() > 0.01  # the comparison is not about constants


@pytest.mark.usefixtures("_small_stripes")
def test_logits_are_averaged_where_that_is_asked(photo: np.ndarray) -> None:
    net = segmenter("segformer-b0", average="logits")
    expected = net.probabilities(photo[None])["multi"][0]
    actual = torch.cat([probs for _, probs in net.stripes(photo)], 1)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


@pytest.mark.usefixtures("_small_stripes")
def test_no_tensor_grows_with_the_photo(photo: np.ndarray) -> None:
    net = segmenter("segformer-b0", window=64, scales=(1.25,))
    tall = np.concatenate([photo] * 3)
    with largest_tensor() as whole:
        net.probabilities(tall[None])
    assert whole.bytes >= 4 * LABELS * tall.shape[0] * tall.shape[1]
    sizes = []
    for image in (photo, tall):
        with largest_tensor() as mode:
            for _ in net.stripes(image):
                pass
        sizes.append(mode.bytes)
    assert sizes[0] == sizes[1] < whole.bytes / 4
