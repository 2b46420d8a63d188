"""The training of every refiner: crops, labels, training loop, cost."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from wsss.compute.threads import fixed_threads
from wsss.config.refine import TrainingConfig
from wsss.labels.ignore import IGNORED
from wsss.refine.base import Refiner
from wsss.refine.inputs import CamSet, SeedSet, TruthSet
from wsss.refine.training.crops import CropBatch, CropStream
from wsss.refine.training.efficiency import Efficiency
from wsss.refine.training.image_labels import ImageLabels
from wsss.refine.training.snapshots import Snapshots
from wsss.refine.training.trainer import Curve, Trainer


@dataclass(frozen=True)
class TrainingResult:
    """What a training returns."""

    tensors: Mapping[str, Tensor]
    """State of `Refiner.trained`, by name."""
    curve: Curve
    efficiency: Efficiency


def train(
    refiner: Refiner[Any],
    cams: CamSet | TruthSet,
    seeds: SeedSet | None,
    settings: TrainingConfig,
    *,
    title: str,
    seed: int,
    key: str,
    work: Path,
    cache: Path,
    workers: int,
    repeated: Collection[str] = (),
    snapshots: Snapshots | None = None,
) -> TrainingResult:
    """Train a refiner on crops of the images of ``cams``; on their truth if it is a `TruthSet`.

    Args:
        cams: the training images, and their CAMs or their truth.
        seeds: their labels, for a method that needs them.
        settings: crops, optimiser, schedule.
        title: the method's name, for people.
        key: digest of all that decides the result: an interrupted training of another is not
            resumed.
        work: folder of the resumable state.
        cache: folder for labels of whole images.
        workers: threads that decode and cut ahead.
        repeated: images that come twice per epoch.
        snapshots: keeps the state of some steps; None keeps none.

    Raises:
        TrainingStoppedError: asked to stop; the next call goes on.
        ValueError: the crop does not fit the patch, there is no image, or the method cannot be
            trained by several processes.
    """
    refiner.train_mode(True)
    supervised = isinstance(cams, TruthSet)
    stream = crop_stream(
        refiner,
        cams,
        seeds,
        settings,
        seed=seed,
        workers=workers,
        cache=cache,
        repeated=repeated,
    )
    trainer = Trainer[CropBatch](
        refiner.trained,
        settings,
        seed=seed,
        work=work,
        key=key,
        description=title,
        groups=refiner.parameter_groups(),
        snapshots=snapshots,
        save_memory=refiner.save_memory,
        after_step=refiner.after_step,
    )

    def losses(step: int, batch: CropBatch) -> Mapping[str, Tensor]:
        batch = batch.to(refiner.encoder.device)
        return refiner.supervised_loss(batch) if supervised else refiner.loss(step, batch)

    with fixed_threads(settings.threads):
        curve = trainer.fit(stream.batches, losses)
        cost = trainer.efficiency(title, *refiner.parameter_counts())
    return TrainingResult(refiner.trained.state_dict(), curve, cost)


def crop_stream(
    refiner: Refiner[Any],
    cams: CamSet | TruthSet,
    seeds: SeedSet | None,
    settings: TrainingConfig,
    *,
    seed: int,
    workers: int,
    cache: Path,
    repeated: Collection[str] = (),
    images: Collection[str] | None = None,
) -> CropStream:
    """The crops that a refiner is trained on, with the labels that it wants; arguments as `train`.

    Args:
        images: draw crops of these alone; None draws from all.
    """
    inputs, crops, labels = refiner.setup.encoder_input, refiner.crops, None
    if isinstance(cams, TruthSet):
        labels, crops = cams.labels, replace(crops, padding=IGNORED, image_labels=False)
    elif seeds is not None:
        labels = seeds.read
    elif crops.image_labels:
        labels = ImageLabels(cams, inputs, crops.ignore_band, cache).read
    return CropStream(
        cams,
        inputs,
        settings,
        seed=seed,
        workers=workers,
        labels=labels,
        padding=crops.padding,
        fill=crops.fill,
        smooth=crops.smooth,
        corner=crops.corner,
        repeated=repeated,
        images=images,
    )
