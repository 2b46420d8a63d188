"""Masks as run lengths, the form of COCO's crowds and of SAM's proposals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool
from pycocotools import mask as rle


def rle_mask(segmentation: Mapping[str, Any], height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """The pixels of COCO's run lengths, checked first, because pycocotools does not check.

    Args:
        segmentation: ``size`` (height, width) and ``counts``, compressed (text) or not (a list).
        height, width: of the image, pixels.

    Raises:
        ValueError, TypeError, LookupError, ArithmeticError: it is none, or of another size.
    """
    counts = segmentation["counts"]
    counts = counts if isinstance(counts, list) else run_lengths(counts)
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(f"is of size {segmentation['size']}, not [{height}, {width}]")
    if not all(isinstance(n, int) and n >= 0 for n in counts) or sum(counts) != height * width:
        raise ValueError(f"its runs are not the {height * width} pixels")
    encoded = rle.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return rle.decode(encoded).astype(bool)


def run_lengths(text: str | bytes) -> list[int]:
    """The runs of COCO's compressed form.

    Numbers are written in groups of five bits, the lowest first, as characters from 48 on; bit six
    says that more follow, bit five of the last one is the sign. From the fourth on, they are
    differences to the run before the last.
    """
    runs: list[int] = []
    value = shift = 0
    for byte in text.encode("ascii") if isinstance(text, str) else text:
        group = byte - 48
        if not 0 <= group < 64 or shift > 60:
            raise ValueError("its runs are not COCO's")
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("its runs are cut off")
    return runs
