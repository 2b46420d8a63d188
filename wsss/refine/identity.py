"""The identity refiner: the CAM is the score, and there is nothing to train."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from wsss.config.model import Config
from wsss.data.datasets.classes import ClassList
from wsss.data.manifest import Sample
from wsss.labels.prediction import Prediction
from wsss.refine.base import Refiner, Scores, TrainingResult
from wsss.refine.inputs import CamSet, ImageCams
from wsss.refine.seed_set import SeedSet


class Identity:
    """Hands the CAMs on."""

    sections: tuple[str, ...] = ("refine",)

    def train(
        self,
        config: Config,
        classes: ClassList,
        cams: CamSet,
        work: Path,
        cache: Path,
        seeds: SeedSet | None = None,
    ) -> TrainingResult:
        """Learn nothing; no CAM is read."""
        return TrainingResult({}, {})

    def apply(
        self,
        config: Config,
        classes: ClassList,
        checkpoint: Path,
        cams: Iterable[ImageCams],
        cache: Path,
    ) -> Iterator[Scores]:
        """The maps as they are."""
        for image in cams:
            yield Scores(image.maps)

    def predict(
        self,
        config: Config,
        classes: ClassList,
        checkpoint: Path,
        samples: Sequence[Sample],
        cache: Path,
    ) -> Iterator[Prediction]:
        """Nothing was learned.

        Raises:
            ValueError: always.
        """
        raise ValueError("refine.method is none, which cannot predict; choose a trained refiner")


refiner: Refiner = Identity()
