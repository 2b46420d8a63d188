"""Predicted label maps from class probabilities, plain and after a dense CRF.

Runs in the CRF's worker processes, so nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from wsss.config.labels import CrfConfig, CrfLabels
from wsss.labels.crf import bounded, dense_crf
from wsss.labels.upsample import shrink, winners

_NOTICEABLE = 0.1


@dataclass(frozen=True)
class Candidates:
    """The prediction of one protocol for an image."""

    labels: UInt8[np.ndarray, "height width"]
    """The most likely label of each pixel."""
    ids: tuple[int, ...]
    """Labels that enter the CRF, ascending; none where no CRF follows."""
    probabilities: Float32[np.ndarray, "candidates _ _"]
    """Probabilities of those labels, at the size of the image or of its CRF."""


def candidates(
    probabilities: Float32[np.ndarray, "labels height width"], which: CrfLabels | None
) -> Candidates:
    """Select the labels that enter the CRF, whose time grows with their number.

    Args:
        which: ``crf_labels`` of the sections ``infer`` and ``predict``; None: no CRF follows, and
            no plane is kept.
    """
    likely = probabilities.argmax(axis=0).astype(np.uint8)
    if which is None:
        return Candidates(likely, (), probabilities[:0].copy())
    ids = crf_ids(probabilities.max(axis=(1, 2)), likely, which)
    return Candidates(likely, ids, probabilities[list(ids)])


def crf_ids(
    peak: Float32[np.ndarray, " labels"],
    likely: UInt8[np.ndarray, "height width"],
    which: CrfLabels,
) -> tuple[int, ...]:
    """Labels that enter the CRF, ascending.

    Args:
        peak: largest probability of each label.
        likely: the most likely label of each pixel.
        which: see `candidates`.
    """
    least = {"all": 0.0, "candidates": _NOTICEABLE, "winners": np.inf}[which]
    return tuple(map(int, np.union1d(np.flatnonzero(peak >= least), likely)))


@dataclass(frozen=True)
class Prediction:
    """An image and the prediction of each protocol."""

    image: UInt8[np.ndarray, "height width 3"]
    protocols: Mapping[str, Candidates]


def label_maps(
    prediction: Prediction, crf: CrfConfig | None
) -> dict[str, UInt8[np.ndarray, "height width"]]:
    """The arrays of a prediction shard.

    Args:
        prediction: RGB image and protocols.
        crf: settings of the dense CRF, which runs at ``long_side``; None leaves
            ``<protocol>_crf`` out.
    """
    if crf is None:
        return {name: protocol.labels for name, protocol in prediction.protocols.items()}
    inputs = crf_inputs(prediction, crf)
    refined = {
        name: dense_crf(probs, inputs.image, inputs.crf) for name, probs in inputs.protocols.items()
    }
    return crf_labels(prediction, refined)


@dataclass(frozen=True)
class CrfInputs:
    """What enters the CRF of an image."""

    image: UInt8[np.ndarray, "h w 3"]
    crf: CrfConfig
    """For an image of this size."""
    protocols: Mapping[str, Float32[np.ndarray, "_ h w"]]
    """Probabilities of the labels of each protocol."""


def crf_inputs(prediction: Prediction, crf: CrfConfig) -> CrfInputs:
    """Image and probabilities at the size at which the CRF runs."""
    image, settings = bounded(prediction.image, crf)
    size = (image.shape[0], image.shape[1])
    protocols = {name: shrink(p.probabilities, size) for name, p in prediction.protocols.items()}
    return CrfInputs(image, settings, protocols)


def crf_labels(
    prediction: Prediction, refined: Mapping[str, Float32[np.ndarray, "_ _ _"]]
) -> dict[str, UInt8[np.ndarray, "height width"]]:
    """The arrays of a prediction shard, from the posteriors of the CRF."""
    maps: dict[str, UInt8[np.ndarray, "height width"]] = {}
    for name, protocol in prediction.protocols.items():
        index, _ = winners(refined[name], protocol.labels.shape)
        maps |= {name: protocol.labels, f"{name}_crf": np.array(protocol.ids, np.uint8)[index]}
    return maps
