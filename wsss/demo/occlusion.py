"""Which object is seen where, and the mask that follows."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsss.demo.canvas import SUPERSAMPLE, Layer

BORDER: Final = 255
"""Mask value of pixels on an edge, one or two wide."""

MIN_PIXELS: Final = 30
"""Mask pixels that the visible part of an object has at least; with fewer it is left out."""


def visible(layers: list[Layer], size: tuple[int, int]) -> tuple[NDArray[np.uint8], list[int]]:
    """Return the owner of each canvas pixel (0 none, k + 1 layer k) and the layers to keep.

    A layer that is mostly hidden, or too small to see, is left out, so that every tag is true.
    """
    kept = list(range(len(layers)))
    while True:
        owner = Image.new("L", size)
        for k in kept:
            owner.paste(k + 1, layers[k].corner, layers[k].alpha)
        pixels = np.asarray(owner)
        hidden = []
        for k in kept:
            whole = int(np.count_nonzero(np.asarray(layers[k].alpha)))
            seen = int(np.count_nonzero(pixels == k + 1))
            enough = np.count_nonzero(_pure(pixels) == k + 1) >= MIN_PIXELS
            if seen < 0.5 * whole or not enough:
                hidden.append(k)
        if not hidden or len(kept) == 1:
            return pixels, kept
        kept.remove(hidden[0])


def _pure(owner: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reduce to image pixels; where the canvas pixels of one disagree, the result is `BORDER`."""
    height, width = (side // SUPERSAMPLE for side in owner.shape)
    blocks = owner.reshape(height, SUPERSAMPLE, width, SUPERSAMPLE)
    low = high = blocks[:, 0, :, 0]
    for row in range(SUPERSAMPLE):
        for column in range(SUPERSAMPLE):
            low = np.minimum(low, blocks[:, row, :, column])
            high = np.maximum(high, blocks[:, row, :, column])
    labels = np.where(low == high, low, BORDER).astype(np.uint8)
    # An edge that falls exactly between two pixels has no mixed one; mark its left or upper side.
    for axis in (0, 1):
        here = labels[:-1] if axis == 0 else labels[:, :-1]
        there = labels[1:] if axis == 0 else labels[:, 1:]
        step = (here != there) & (here != BORDER) & (there != BORDER)
        here[step] = BORDER
    return labels


def to_mask(owner: NDArray[np.uint8], labels: list[int]) -> NDArray[np.uint8]:
    """Return the mask in image pixels from the owners in canvas pixels.

    Args:
        owner: from `visible`.
        labels: mask value of each layer.
    """
    table = np.zeros(256, dtype=np.uint8)
    table[BORDER] = BORDER
    table[1 : len(labels) + 1] = labels
    mask: NDArray[np.uint8] = table[_pure(owner)]
    return mask
