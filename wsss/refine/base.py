"""What a refiner is: trained on the CAMs of the train split, then applied to CAM shards.

A refiner is an object named ``refiner`` in ``wsss.refine.<method>``. It knows tensors; files,
provenance, reuse and checks are the business of `wsss.refine.stage`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from wsss.config.model import Config
from wsss.data.datasets.classes import ClassList
from wsss.data.manifest import Sample
from wsss.labels.prediction import Prediction
from wsss.refine.inputs import CamSet, ImageCams
from wsss.refine.registry import method_module
from wsss.refine.seed_set import SeedSet
from wsss.refine.training.efficiency import Efficiency

if TYPE_CHECKING:
    import torch  # 3 s at import: applying the identity refiner does without


Curve = Mapping[str, Sequence[float]]
"""What was measured at every training step: ``loss``, its parts, ``lr``; empty without training."""


@dataclass(frozen=True)
class Scores:
    """What a refiner says of one image."""

    classes: Float[np.ndarray, "classes h w"]
    """In 0 … 1, one map for each of the image's classes, on a grid of any size."""
    background: Float[np.ndarray, "h w"] | None = None
    """The refiner's own score of the background, in 0 … 1; None: ``masks.background`` makes it."""
    ids: tuple[int, ...] | None = None
    """0-based classes of the maps, where they are others than the image's."""


@dataclass(frozen=True)
class TrainingResult:
    """What a training gave."""

    tensors: Mapping[str, torch.Tensor]
    """What `Refiner.apply` needs, by name: the trained parameters, not the frozen encoder."""
    curve: Curve
    efficiency: Efficiency | None = None
    """What it cost; None where nothing was trained."""


@runtime_checkable
class Refiner(Protocol):
    """The interface; `wsss.refine.identity` is the smallest example.

    All methods are given the sections data, clip, cams, refine and compute, `train` the seed as
    well, `apply` and `predict` the section infer; and a folder for downloads and text embeddings.
    """

    sections: tuple[str, ...]
    """Configuration sections that `apply` reads; they decide whether a kept score is still valid.
    The checkpoint, the photo, the tags and the CAM are looked at in any case."""

    def train(
        self,
        config: Config,
        classes: ClassList,
        cams: CamSet,
        work: Path,
        cache: Path,
        seeds: SeedSet | None = None,
    ) -> TrainingResult:
        """Learn from the CAMs of the train split, or from seeds made of them.

        Args:
            config: see the class.
            classes: the data set's classes.
            cams: by position or id; read from disk, and checked, each time an item is asked for.
            work: folder that outlives an interrupted run: what to resume from.
            cache: see the class.
            seeds: of the same images, where ``refine.needs_seeds``.
        """

    def apply(
        self,
        config: Config,
        classes: ClassList,
        checkpoint: Path,
        cams: Iterable[ImageCams],
        cache: Path,
    ) -> Iterator[Scores]:
        """Refined scores of each image, in the order of ``cams``; it may read ahead to batch.

        The scores of an image must not depend on its neighbours in the batch.

        Args:
            config: see the class.
            classes: the data set's classes.
            checkpoint: `TrainingResult.tensors`, to be read with
                `wsss.artifacts.checkpoint.load_checkpoint`.
            cams: the images.
            cache: see the class.
        """

    def predict(
        self,
        config: Config,
        classes: ClassList,
        checkpoint: Path,
        samples: Sequence[Sample],
        cache: Path,
    ) -> Iterator[Prediction]:
        """Predict every label of each image, in the order of ``samples``, without its tags.

        Arguments as for `apply`.

        Raises:
            ValueError: the refiner learns nothing that could predict.
        """


def find_refiner(method: str) -> Refiner:
    """The refiner of that name; the others are not imported."""
    refiner: Refiner = importlib.import_module(method_module(method)).refiner
    return refiner
