"""The identity refiner: the CAM is the score, and there is nothing to train."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from wsss.config.model import Config
from wsss.data.classes import ClassList
from wsss.refine.base import Refiner
from wsss.refine.cams import CamSet, ImageCams


class Identity:
    """Hands the CAMs on."""

    sections: tuple[str, ...] = ("refine",)

    def train(
        self, config: Config, classes: ClassList, cams: CamSet, work: Path
    ) -> Mapping[str, Any]:
        """Learn nothing; no CAM is read."""
        return {}

    def apply(
        self, config: Config, classes: ClassList, checkpoint: Path, cams: Iterable[ImageCams]
    ) -> Iterator[Float[np.ndarray, "classes h w"]]:
        """The maps as they are."""
        for image in cams:
            yield image.maps


refiner: Refiner = Identity()
