"""Label maps from class probabilities, plain and after a dense CRF.

Runs in the CRF's worker processes, so nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from wsss.config.labels import CrfConfig
from wsss.labels.crf import dense_crf

_NOTICEABLE = 0.1


@dataclass(frozen=True)
class Candidates:
    """What one protocol predicts for an image."""

    labels: UInt8[np.ndarray, "height width"]
    """The most likely label of each pixel."""
    ids: tuple[int, ...]
    """Labels that have a probability of at least 0.1 somewhere, ascending."""
    probabilities: Float32[np.ndarray, "candidates height width"]
    """Theirs."""


def candidates(probabilities: Float32[np.ndarray, "labels height width"]) -> Candidates:
    """Keep the labels that a CRF could choose: its time grows with their number."""
    likely = probabilities.argmax(axis=0)
    peak = probabilities.max(axis=(1, 2))
    ids = np.union1d(np.flatnonzero(peak >= _NOTICEABLE), likely)
    return Candidates(likely.astype(np.uint8), tuple(map(int, ids)), probabilities[ids])


@dataclass(frozen=True)
class Prediction:
    """An image and what each protocol predicts for it."""

    image: UInt8[np.ndarray, "height width 3"]
    protocols: Mapping[str, Candidates]


def label_maps(
    prediction: Prediction, crf: CrfConfig | None
) -> dict[str, UInt8[np.ndarray, "height width"]]:
    """The arrays of a prediction shard.

    Args:
        prediction: RGB image and protocols.
        crf: settings of the dense CRF; None leaves ``<protocol>_crf`` out.
    """
    maps = {}
    for name, found in prediction.protocols.items():
        maps[name] = found.labels
        if crf is not None:
            posterior = dense_crf(found.probabilities, prediction.image, crf)
            maps[f"{name}_crf"] = np.array(found.ids, np.uint8)[posterior.argmax(axis=0)]
    return maps
