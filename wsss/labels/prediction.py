"""Predicted label maps from class probabilities, plain and after a dense CRF, and their shards.

Runs in the CRF's worker processes, so nothing here imports torch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from wsss.artifacts.digest import digest_json
from wsss.artifacts.item_cache import write_items
from wsss.artifacts.provenance import Provenance
from wsss.artifacts.shard import Item
from wsss.compute.pool import WorkerPool
from wsss.config.labels import CrfConfig, CrfLabels
from wsss.data.manifest import Sample
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
        probabilities: of all labels.
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


def write_predictions(
    out: Path,
    samples: Sequence[Sample],
    predict: Callable[[list[Sample]], Iterable[tuple[str, Prediction]]],
    provenance: Provenance,
    *,
    key: str,
    crf: CrfConfig | None,
    workers: int,
    description: str,
    device: str = "cpu",
) -> None:
    """Write a shard of kind ``predictions``: a label map per protocol, uint8 at image size.

    Label maps that an earlier run made from the same things are copied.

    Args:
        out: the shard.
        samples: its images.
        predict: gives id and prediction of some images, in any order.
        provenance: of the shard.
        key: digest of all that a prediction depends on, but the image.
        crf: adds ``<protocol>_crf``, after a dense CRF with these settings; None for none.
        workers: processes that run CRFs.
        description: shown next to the progress.
        device: of the network. On a GPU the CRF with the backend torch runs there, too.
    """
    by_id = {sample.id: sample for sample in samples}
    keys = {s.id: digest_json([key, s.digest, list(s.tags)]) for s in samples}

    def compute(missing: list[str]) -> Iterator[Item]:
        if not missing:
            return
        predictions = predict([by_id[image] for image in missing])
        with WorkerPool(workers if crf else 1) as pool:
            for image, arrays in _label_maps(predictions, crf, pool, device):
                size = [by_id[image].height, by_id[image].width]
                yield Item(image, arrays, {"size": size}, keys[image])

    write_items(
        out,
        kind="predictions",
        keys=keys,
        provenance=provenance,
        compute=compute,
        description=description,
    )


def _label_maps(
    predictions: Iterable[tuple[str, Prediction]],
    crf: CrfConfig | None,
    pool: WorkerPool,
    device: str,
) -> Iterator[tuple[str, dict[str, UInt8[np.ndarray, "height width"]]]]:
    """On a GPU, or in processes."""
    if crf is not None and crf.backend == "torch" and device.startswith("cuda"):
        from wsss.labels.device_crf import label_maps_on

        return label_maps_on(device, predictions, crf)
    return pool.map(functools.partial(label_maps, crf=crf), predictions)
