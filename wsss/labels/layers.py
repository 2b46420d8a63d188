"""Regions that overlap, as one mask."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, UInt8


def layered(
    regions: Iterable[tuple[int, Bool[np.ndarray, "height width"]]], height: int, width: int
) -> UInt8[np.ndarray, "height width"]:
    """The mask of labels and their regions, the smaller ones on top.

    Args:
        regions: label and pixels of each.
        height: of the mask, pixels.
        width: likewise.
    """
    drawn = np.zeros((height, width), np.uint8)
    for label, mask in sorted(regions, key=lambda region: -np.count_nonzero(region[1])):
        drawn[mask] = label
    return drawn
