"""The stage `predict`: label maps of one part of a split by the trained segmenter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from wsss.artifacts.checkpoint_header import checkpoint_provenance, tensors_digest
from wsss.artifacts.digest import digest_file, digest_json
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.stage import STAGES
from wsss.compute.device_memory import FittingBatches
from wsss.compute.precision import on_device
from wsss.compute.threads import one_thread_each, ordered_map
from wsss.config.base import Supervision
from wsss.config.compute import ComputeConfig
from wsss.config.labels import CrfConfig, CrfLabels
from wsss.config.retrain import PredictConfig, RetrainConfig
from wsss.data.datasets.classes import ClassList
from wsss.data.images.read import read_image
from wsss.data.manifest import Sample
from wsss.data.manifest_folder import load, manifest_digests
from wsss.labels.candidates import batch_candidates
from wsss.labels.prediction import Prediction
from wsss.labels.prediction_shards import PredictionJob, finish, write_predictions
from wsss.retrain.segmenter import Segmenter, SegmenterFacts, load_segmenter
from wsss.retrain.train import label_names

Photo = UInt8[np.ndarray, "height width 3"]
_Loaded = tuple[Sequence[Sample], list[Photo]]


@on_device()
def run(
    manifest_dir: Path,
    split: str,
    shard: tuple[int, int],
    checkpoint: Path,
    out: Path,
    planes_to: Path | None = None,
    planes: Path | None = None,
    *,
    supervision: Supervision,
    max_pixels: int,
    crf: CrfConfig,
    retrain: RetrainConfig,
    predict: PredictConfig,
    compute: ComputeConfig,
) -> None:
    """Predict one part of a split: a shard of kind ``predictions``.

    Arrays are uint8 label maps at image size: ``single``, ``multi`` (mean over ``predict.scales``
    and mirroring) and, with ``predict.crf``, ``single_crf`` and ``multi_crf`` (the same after a
    dense CRF with the settings of ``predict.crf_settings``, or else of ``masks.crf``).

    Args:
        split: ``train`` or ``val``.
        shard: part and number of parts, 1-based.
        checkpoint: what `wsss.retrain.train.train` wrote.
        planes_to: file to write instead of the shard: what a job on CPUs makes it from.
        planes: such a file, from which the shard is made; the network does not run.
        supervision: the checkpoint must have been trained so.
        max_pixels: see `read_image`.
        crf: settings of the masks' dense CRF.
        compute: device, batch and workers; changes no label.

    Raises:
        ArtifactError: the checkpoint is of another architecture, class list or supervision, or
            ``planes`` are of another shard.
        ValueError: ``predict.window`` does not suit the network, or a photo is too large for its
            attention.
    """
    values: dict[str, Any] = {
        "supervision": supervision, "max_pixels": max_pixels, "crf": crf, "retrain": retrain,
        "predict": predict,
    }  # fmt: skip
    stage = STAGES["predict"]
    provenance = stage.provenance(
        values,
        weights={"segmenter": digest_file(checkpoint)},
        inputs=manifest_digests(manifest_dir),
        sources={checkpoint: checkpoint_provenance(checkpoint)},
    )
    manifest, classes = load(manifest_dir)
    samples = tuple(manifest.split(split).shard(*shard))
    job = PredictionJob(
        out,
        samples,
        provenance,
        crf=(predict.crf_settings or crf) if predict.crf else None,
        workers=compute.workers,
        description=f"segmenting {split}",
    )
    if planes is not None:
        finish(job, planes, max_pixels=max_pixels)
        return
    settings = predict.model_dump(include={"scales", "average", "window", "stride"})
    segmenter = load_segmenter(checkpoint, compute.device, **settings)
    _check_origin(checkpoint, segmenter.facts, retrain, classes)
    # A training that ended alike leaves the same tensors in another file.
    weights = {"segmenter": tensors_digest(checkpoint)}
    key = [stage.provenance(values, weights=weights).key(), segmenter.facts.model_dump(mode="json")]

    def predicted(some: list[Sample]) -> Iterator[tuple[str, Prediction]]:
        return predictions(
            segmenter,
            some,
            batch=compute.batch,
            max_pixels=max_pixels,
            crf_labels=predict.crf_labels if predict.crf else None,
        )

    write_predictions(
        job,
        predicted,
        key=digest_json(key),
        device=str(segmenter.device),
        planes_to=planes_to,
        labels=len(segmenter.facts.labels) if predict.crf_labels == "all" else 0,
    )


def predictions(
    segmenter: Segmenter,
    samples: Sequence[Sample],
    *,
    batch: int,
    max_pixels: int,
    crf_labels: CrfLabels | None,
) -> Iterator[tuple[str, Prediction]]:
    """Id and prediction of each sample; ``crf_labels`` is None where no CRF follows.

    On a GPU images of equal size follow each other in batches, which are halved where they do not
    fit into its memory. On a CPU, where batches gain little,
    the unit of work is one image on one thread: rounding differs with the batch and the number of
    threads, and a prediction must not depend on how the work was cut.

    Raises:
        ValueError: a photo is too large for the network's attention.
        DeviceMemoryError: one image does not fit into the memory of the GPU.
    """
    segmenter.check_sizes(samples)

    def load(some: Sequence[Sample]) -> _Loaded:
        return some, [read_image(s.path, digest=s.digest, max_pixels=max_pixels) for s in some]

    fitting = FittingBatches(
        "lower compute.batch, set predict.window and predict.stride, or set compute.device to cpu"
    )

    def predicted(loaded: _Loaded) -> list[tuple[str, Prediction]]:
        some, photos = loaded
        results = batch_candidates(segmenter.probabilities(np.stack(photos)), crf_labels)
        return [
            (sample.id, Prediction(photo, protocols))
            for sample, photo, protocols in zip(some, photos, results, strict=True)
        ]

    if segmenter.device.type == "cpu":
        with one_thread_each() as threads:
            singles = ([sample] for sample in samples)
            for results in ordered_map(lambda s: predicted(load(s)), singles, threads=threads):
                yield from results
        return
    by_size: dict[tuple[int, int], list[Sample]] = {}
    for sample in samples:
        by_size.setdefault((sample.height, sample.width), []).append(sample)
    batches = (
        group[start : start + batch]
        for group in by_size.values()
        for start in range(0, len(group), batch)
    )
    # Photos of the next batches are decoded while the GPU works on this one.
    for some, photos in ordered_map(load, batches, threads=2):
        yield from fitting.run(_parts(predicted, some, photos), len(some))


def _parts(
    predicted: Callable[[_Loaded], list[tuple[str, Prediction]]],
    some: Sequence[Sample],
    photos: list[Photo],
) -> Callable[[slice], list[tuple[str, Prediction]]]:
    """The predictions of a part of a batch."""
    return lambda part: predicted((some[part], photos[part]))


def _check_origin(
    path: Path, facts: SegmenterFacts, retrain: RetrainConfig, classes: ClassList
) -> None:
    if facts.model != retrain.model:
        raise ArtifactError(
            f"{path}: holds {facts.model!r}, but retrain.model is {retrain.model!r}; train again "
            "or correct the configuration"
        )
    if facts.labels != label_names(classes):
        raise ArtifactError(
            f"{path}: was trained for another class list than that of this manifest "
            f"({classes.name}: {len(classes.names)} classes); train again"
        )
