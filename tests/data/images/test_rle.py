"""Run lengths are read as pycocotools reads them, and refused where it would not notice."""

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as rle

from wsss.data.images.rle import rle_mask


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (40, 61)])
def test_both_forms_are_those_of_pycocotools(size: tuple[int, int]) -> None:
    generator = np.random.default_rng(size[0])
    for share in (0.0, 0.2, 0.9, 1.0):
        mask = generator.random(size) < share
        compressed: Any = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
        text = {"size": list(size), "counts": compressed["counts"].decode()}
        flat = mask.T.reshape(-1).astype(int)  # column by column
        edges = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
        runs = np.diff([0, *edges, flat.size]).tolist()
        for form in (text, {"size": list(size), "counts": runs}):
            np.testing.assert_array_equal(rle_mask(form, *size), mask)
            decoded: Any = rle.decode(compressed)
            np.testing.assert_array_equal(rle_mask(form, *size), decoded.astype(bool))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": [3, 2], "counts": [6]}, "is of size"),
        ({"size": [2, 3], "counts": [5]}, "not the 6 pixels"),
        ({"size": [2, 3], "counts": [-1, 7]}, "not the 6 pixels"),
        ({"size": [2, 3], "counts": "~"}, "not COCO's"),
        ({"size": [2, 3]}, "counts"),
    ],
)
def test_other_runs_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, KeyError), match=message):
        rle_mask(wrong, 2, 3)
