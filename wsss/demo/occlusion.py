"""Visible parts of overlapping objects, and the mask."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsss.demo.canvas import SUPERSAMPLE, Layer

BORDER: Final = 255
"""Mask value of pixels on an edge, one or two wide."""

MIN_PIXELS: Final = 30
"""Fewest mask pixels of the visible part of an object; an object with fewer is not drawn."""


def visible(layers: list[Layer], size: tuple[int, int]) -> tuple[NDArray[np.uint8], list[int]]:
    """Return the layer of each canvas pixel (0 none, k + 1 layer k) and the visible layers.

    A layer that is mostly hidden or too small is not drawn, so that every tag is true.

    Args:
        layers: the objects, back to front.
        size: width and height of the canvas.
    """
    shown = list(range(len(layers)))
    while True:
        image = Image.new("L", size)
        for k in shown:
            image.paste(k + 1, layers[k].corner, layers[k].alpha)
        layer_map = np.asarray(image)
        hidden = []
        for k in shown:
            total = int(np.count_nonzero(np.asarray(layers[k].alpha)))
            visible_pixels = int(np.count_nonzero(layer_map == k + 1))
            enough = np.count_nonzero(_pure(layer_map) == k + 1) >= MIN_PIXELS
            if visible_pixels < 0.5 * total or not enough:
                hidden.append(k)
        if not hidden or len(shown) == 1:
            return layer_map, shown
        shown.remove(hidden[0])


def _pure(layer_map: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reduce to image pixels; those whose canvas pixels differ become `BORDER`."""
    height, width = (side // SUPERSAMPLE for side in layer_map.shape)
    blocks = layer_map.reshape(height, SUPERSAMPLE, width, SUPERSAMPLE)
    low = high = blocks[:, 0, :, 0]
    for row in range(SUPERSAMPLE):
        for column in range(SUPERSAMPLE):
            low = np.minimum(low, blocks[:, row, :, column])
            high = np.maximum(high, blocks[:, row, :, column])
    labels = np.where(low == high, low, BORDER).astype(np.uint8)
    # An edge exactly between two pixels has no mixed pixel; mark its left or upper side.
    for axis in (0, 1):
        first = labels[:-1] if axis == 0 else labels[:, :-1]
        second = labels[1:] if axis == 0 else labels[:, 1:]
        edge = (first != second) & (first != BORDER) & (second != BORDER)
        first[edge] = BORDER
    return labels


def to_mask(layer_map: NDArray[np.uint8], labels: list[int]) -> NDArray[np.uint8]:
    """Return the mask in image pixels from the layers in canvas pixels.

    Args:
        layer_map: from `visible`.
        labels: mask value of each layer.
    """
    table = np.zeros(256, dtype=np.uint8)
    table[BORDER] = BORDER
    table[1 : len(labels) + 1] = labels
    return table[_pure(layer_map)]
