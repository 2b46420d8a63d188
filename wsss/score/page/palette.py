"""Colours of labels on the result page. PNGs of masks keep VOC's palette."""

from __future__ import annotations

import colorsys

import numpy as np
from jaxtyping import UInt8

_DISTINCT = (
    "#0077bb", "#ee7733", "#009988", "#cc3311", "#33bbee", "#ee3377", "#ddcc77", "#332288",
    "#117733", "#aa4499", "#88ccee", "#882255",
)  # fmt: skip
"""Of the qualitative schemes of Paul Tol (technical note SRON/EPS/TN/09-002), without greys."""
_GOLDEN_ANGLE = 0.381966  # turns; successive hues are far apart
_LIGHTNESS = (0.38, 0.58, 0.74)


def picture_palette(labels: int) -> UInt8[np.ndarray, "256 3"]:
    """RGB of each label: 0 and 255 are black, which pictures do not paint.

    The first twelve classes have colours that were chosen for every colour vision. Further ones
    differ in hue and lightness; no larger set of colours differs for everyone.

    Args:
        labels: number of labels, background included.
    """
    palette = np.zeros((256, 3), np.uint8)
    for label in range(1, min(labels, 255)):
        palette[label] = _colour(label - 1)
    return palette


def hex_colours(palette: UInt8[np.ndarray, "256 3"], labels: int) -> list[str]:
    """The colours of labels 0 to ``labels - 1`` as ``#rrggbb``."""
    return ["#" + bytes(palette[label].tolist()).hex() for label in range(labels)]


def _colour(index: int) -> tuple[int, int, int]:
    if index < len(_DISTINCT):
        red, green, blue = bytes.fromhex(_DISTINCT[index][1:])
        return red, green, blue
    further = index - len(_DISTINCT)
    lightness = _LIGHTNESS[further % len(_LIGHTNESS)]
    rgb = colorsys.hls_to_rgb(further * _GOLDEN_ANGLE % 1, lightness, 0.75)
    red, green, blue = (round(255 * part) for part in rgb)
    return red, green, blue
