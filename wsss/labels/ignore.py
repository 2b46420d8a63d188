"""The ignore band: pixels whose label is too uncertain to learn from."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

IGNORED = 255
"""The label that trainings and scores skip, as in VOC."""


def ignore_band(
    label: UInt8[np.ndarray, "h w"], confidence: Float[np.ndarray, "h w"], min_confidence: float
) -> UInt8[np.ndarray, "h w"]:
    """A copy of ``label`` that is 255 where ``confidence`` is below ``min_confidence``.

    This is CLIP-ES's confidence-guided loss, realised as data (there with 0.95).
    """
    return np.where(confidence < min_confidence, np.uint8(IGNORED), label)
