"""What a job with a network hands to a job on CPUs, which goes on with the dense CRF.

Per image: the label map of each protocol, and the planes of probabilities that enter its CRF. The
photo is not among it, since the next job reads it from the manifest.

A plane is stored at the size at which the CRF runs, in half precision where that loses nothing:
planes from a GPU come in half precision. So the CRF computes the same bits in either job.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, UInt8

from wsss.artifacts.shard import Item
from wsss.config.labels import CrfConfig
from wsss.labels.crf import FLOOR
from wsss.labels.prediction import Candidates, Prediction, crf_inputs

KIND = "planes"
"""Of shards."""
MOST_LABELS = 32
"""With more labels in every CRF the planes take too much disk: the CRF stays next to the network.
All 21 labels of VOC are handed over; all 81 of COCO would take 100 MB per image, 4 TB for val."""
_IDS, _STATE, _SUFFIX = "ids", "state", "_planes"
_DONE, _REUSED = "done", "reused"


def done_item(image: str, maps: Mapping[str, np.ndarray], size: list[int], key: str) -> Item:
    """The item of an image whose label maps are complete."""
    return Item(image, maps, {"size": size, _STATE: _DONE}, key)


def reused_item(image: str, size: list[int], key: str) -> Item:
    """The item of an image whose label maps an earlier run made."""
    return Item(image, {}, {"size": size, _STATE: _REUSED}, key)


def planes_item(
    image: str, prediction: Prediction, crf: CrfConfig, size: list[int], key: str
) -> Item:
    """The item of an image that waits for its CRF.

    Args:
        image: its id.
        size: height and width, pixels.
    """
    arrays: dict[str, np.ndarray] = {}
    inputs = crf_inputs(prediction, crf)
    for name, protocol in prediction.protocols.items():
        arrays[name] = protocol.labels
        arrays[f"{name}{_SUFFIX}"] = _packed(inputs.protocols[name])
    ids = {name: list(protocol.ids) for name, protocol in prediction.protocols.items()}
    return Item(image, arrays, {"size": size, _IDS: ids}, key)


def prediction_of(item: Item, photo: UInt8[np.ndarray, "height width 3"]) -> Prediction:
    """What the network said of an image, see `planes_item`."""
    protocols = {
        name: Candidates(
            item.arrays[name], tuple(ids), item.arrays[f"{name}{_SUFFIX}"].astype(np.float32)
        )
        for name, ids in item.attrs[_IDS].items()
    }
    return Prediction(photo, protocols)


def is_done(attrs: Mapping[str, Any]) -> bool:
    """Whether an item holds complete label maps, by its attributes."""
    return attrs.get(_STATE) == _DONE


def is_reused(attrs: Mapping[str, Any]) -> bool:
    """Whether an item stands for label maps of an earlier run, by its attributes."""
    return attrs.get(_STATE) == _REUSED


def _packed(planes: Float32[np.ndarray, "labels h w"]) -> Float[np.ndarray, "labels h w"]:
    """Planes from which the CRF computes the same, in fewer bytes.

    The CRF raises probabilities below `FLOOR` to it, so these may as well be 0.
    """
    cut = np.where(planes < FLOOR, np.float32(0), planes)
    half = cut.astype(np.float16)
    return half if np.array_equal(half, cut) else cut
