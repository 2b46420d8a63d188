"""How good the labels were that a refiner learned, step by step of its training.

Some methods make their labels while they train, from what they have learned so far. A training with
``refine.train.snapshots_every`` keeps the states of some steps. Here each makes the labels that
supervised its step, on the same crops, and these are scored against the truth. Training itself
never opens that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from jaxtyping import UInt8

from wsss.artifacts.atomic import write_text
from wsss.artifacts.progress import track
from wsss.compute import seeding
from wsss.compute.precision import on_device
from wsss.compute.threads import fixed_threads
from wsss.config.data import DataConfig
from wsss.data.manifest import Manifest
from wsss.data.manifest_folder import load
from wsss.labels.ignore import IGNORED
from wsss.refine.base import Refiner
from wsss.refine.inputs import CamSet, SeedSet
from wsss.refine.load import Sections, configured_refiner, load_state
from wsss.refine.training.crops import CropBatch
from wsss.refine.training.run import crop_stream
from wsss.refine.training.snapshots import kept_snapshots
from wsss.score.figures.contact_sheet import sample_images
from wsss.score.figures.lines import label_curve
from wsss.score.metrics.confusion import Confusion
from wsss.score.record import numbers
from wsss.score.tables.write import csv_text
from wsss.score.truth.find import find_truth, read_labels

SPLIT = "train"


@dataclass(frozen=True)
class _Crops:
    """A batch of training crops, and their truth."""

    batch: CropBatch
    truth: Sequence[UInt8[np.ndarray, "side side"]]
    """Of each crop; 255 where it has none, as in padding."""


@on_device(fixed_sizes=True)
def run(
    manifest_dir: Path,
    cam_shards: Sequence[Path],
    checkpoint: Path,
    out: Path,
    picture: Path,
    cache: Path,
    seed_shards: Sequence[Path] = (),
    *,
    images: int,
    seed: int,
    data: DataConfig,
    **sections: Unpack[Sections],
) -> None:
    """Score the labels of each step whose state was kept, and draw them.

    There is one crop of each image, drawn as the training draws them. Pixels without a label or
    without a truth do not count.

    Args:
        manifest_dir: what ingest wrote, or tag-noise.
        cam_shards: CAM shards of the train split.
        checkpoint: of the refiner; the states lie next to it.
        out: CSV to write: a row per step with ``step``, ``images``, ``miou``, ``labelled`` (share
            of the pixels with a truth that have a label), and the IoU of each label.
        cache: folder for weights, text embeddings and labels of whole images.
        seed_shards: seed shards of the train split, for a refiner that learns from seeds.
        images: training images, spread over the classes; cut to whole batches.
        data: the data set, where its truth lies.

    Raises:
        ArtifactError: no states were kept, or they are of another training; a shard is damaged.
        TruthError: ground truth is missing, of another size than its image, or has labels above
            those of the class list.
    """
    refine, compute = sections["refine"], sections["compute"]
    snapshots = kept_snapshots(checkpoint)
    manifest, classes = load(manifest_dir)
    names = ("background", *classes.names)
    refiner = configured_refiner(sections, classes, cache, seed=seed)
    listed = manifest.split(SPLIT)
    with CamSet(cam_shards, listed) as cams, SeedSet(seed_shards, listed) as seeds:
        truth = find_truth(data, listed, SPLIT)
        scored = Manifest(tuple(cams.sample(i) for i in cams.ids if i in truth.sources))
        batch = min(refine.train.batch, len(scored))
        count = max(batch, min(images, len(scored)) // batch * batch)
        stream = crop_stream(
            refiner,
            cams,
            seeds if refine.needs_seeds else None,
            refine.train.model_copy(update={"batch": batch, "iterations": count // batch}),
            seed=seed,
            workers=compute.workers,
            cache=cache,
            images={sample.id for sample in sample_images(scored, count)},
        )
        crops = [
            _Crops(
                batch.to(refiner.encoder.device),
                [
                    crop.labels(read_labels(truth, cams.sample(image), classes), outside=IGNORED)
                    for image, crop in batch.cuts
                ],
            )
            for batch in stream.batches(0)
        ]
    rows: list[dict[str, object]] = []
    steps = track(snapshots.items(), total=len(snapshots), description="Labels of steps")
    with fixed_threads(refine.train.threads):
        for step, path in steps:
            load_state(refiner, path, refine.method)
            rows.append(
                {"step": step, "images": count} | _scores(refiner, step, crops, seed, names)
            )
    write_text(out, csv_text(rows))
    label_curve(out, picture)


def _scores(
    refiner: Refiner[Any], step: int, crops: Iterable[_Crops], seed: int, names: Sequence[str]
) -> dict[str, object]:
    """How the labels that supervise a step agree with the truth."""
    confusion, pixels = Confusion(len(names), ignore_band=True), 0
    refiner.train_mode(True)
    for index, some in enumerate(crops):
        torch.manual_seed(seeding.seed_number(seed, seeding.NETWORK, 1 + step, index))
        labels = refiner.supervision(step, some.batch).cpu().numpy()
        for truth, label in zip(some.truth, labels, strict=True):
            confusion.add(truth, label)
            pixels += int(np.count_nonzero(truth != IGNORED))
    values = numbers(confusion.matrix, names, ())
    labelled = int(confusion.matrix.sum()) / pixels if pixels else None
    iou = values["iou"]
    assert isinstance(iou, dict)
    return {"miou": values["miou"], "labelled": labelled} | iou
