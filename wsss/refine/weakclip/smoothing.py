"""The CRF of one crop; runs in a worker process, so nothing here imports torch."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, UInt8

from wsss.config.labels import CrfConfig
from wsss.labels.crf import posterior

FLOOR = 1e-4
"""Of probabilities that enter the CRF, and of those that leave it."""

Crop = tuple[Float32[np.ndarray, "labels h w"], UInt8[np.ndarray, "h w 3"]]
"""Probabilities of the labels that enter the CRF, and the photo of their size."""


def smoothed(crop: Crop, *, crf: CrfConfig) -> Float32[np.ndarray, "labels h w"]:
    """The CRF's posterior, floored at 1e-4 and renormalised: eq. 19 of docs/methods/weakclip.md."""
    probs, photo = crop
    energy = -np.log(np.maximum(probs, FLOOR))
    after = np.maximum(posterior(energy, photo, crf), FLOOR)
    return after / after.sum(0)
