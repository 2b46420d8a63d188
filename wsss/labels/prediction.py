"""Predicted label maps from class probabilities, plain and after a dense CRF, and their shards.

Runs in the CRF's worker processes, so nothing here imports torch.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from wsss.artifacts.digest import digest_json
from wsss.artifacts.progress import track
from wsss.artifacts.provenance import Provenance
from wsss.artifacts.shard import Item, ShardWriter
from wsss.compute.pool import WorkerPool
from wsss.config.labels import CrfConfig
from wsss.data.manifest import Sample
from wsss.labels.crf import dense_crf

_NOTICEABLE = 0.1


@dataclass(frozen=True)
class Candidates:
    """The prediction of one protocol for an image."""

    labels: UInt8[np.ndarray, "height width"]
    """The most likely label of each pixel."""
    ids: tuple[int, ...]
    """Labels that have a probability of at least 0.1 somewhere, ascending."""
    probabilities: Float32[np.ndarray, "candidates height width"]
    """Probabilities of those labels."""


def candidates(probabilities: Float32[np.ndarray, "labels height width"]) -> Candidates:
    """Select the labels that a CRF could choose: its time grows with their number."""
    likely = probabilities.argmax(axis=0)
    peak = probabilities.max(axis=(1, 2))
    ids = np.union1d(np.flatnonzero(peak >= _NOTICEABLE), likely)
    return Candidates(likely.astype(np.uint8), tuple(map(int, ids)), probabilities[ids])


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
        crf: settings of the dense CRF; None leaves ``<protocol>_crf`` out.
    """
    maps = {}
    for name, protocol in prediction.protocols.items():
        maps[name] = protocol.labels
        if crf is not None:
            posterior = dense_crf(protocol.probabilities, prediction.image, crf)
            maps[f"{name}_crf"] = np.array(protocol.ids, np.uint8)[posterior.argmax(axis=0)]
    return maps


def write_predictions(
    out: Path,
    samples: Sequence[Sample],
    predictions: Iterable[tuple[str, Prediction]],
    provenance: Provenance,
    *,
    crf: CrfConfig | None,
    workers: int,
    description: str,
) -> None:
    """Write a shard of kind ``predictions``: a label map per protocol, uint8 at image size.

    Args:
        out: the shard.
        samples: its images.
        predictions: id and prediction of each of them, in any order.
        provenance: of the shard.
        crf: adds ``<protocol>_crf``, after a dense CRF with these settings; None for none.
        workers: processes that run CRFs.
        description: shown next to the progress.
    """
    by_id = {sample.id: sample for sample in samples}
    key = provenance.key()
    with (
        ShardWriter(out, kind="predictions", ids=list(by_id), provenance=provenance) as writer,
        WorkerPool(workers if crf else 1) as pool,
    ):
        maps = pool.map(functools.partial(label_maps, crf=crf), predictions)
        for image, arrays in track(maps, total=len(samples), description=description):
            sample = by_id[image]
            item_key = digest_json([key, sample.digest, list(sample.tags)])
            writer.add(Item(image, arrays, {"size": [sample.height, sample.width]}, item_key))
