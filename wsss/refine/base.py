"""What a refiner is: trained on the CAMs of the train split, then applied to CAM shards.

A refiner is an object named ``refiner`` in ``wsss.refine.<method>``. It knows tensors; files,
provenance, reuse and checks are the business of `wsss.refine.stage`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from wsss.config.model import Config
from wsss.data.classes import ClassList
from wsss.refine.cams import CamSet, ImageCams

if TYPE_CHECKING:
    import torch  # 3 s at import: applying the identity refiner does without


@runtime_checkable
class Refiner(Protocol):
    """The interface; `wsss.refine.none` is the smallest example."""

    sections: tuple[str, ...]
    """Configuration sections that `apply` reads; they decide whether a kept score is still valid.
    The checkpoint, the photo, the tags and the CAM are looked at in any case."""

    def train(
        self, config: Config, classes: ClassList, cams: CamSet, work: Path
    ) -> Mapping[str, torch.Tensor]:
        """Learn from the CAMs of the train split.

        Args:
            config: the sections seed, data, clip, cams, refine and compute.
            classes: the data set's classes.
            cams: by position or id; read from disk, and checked, each time an item is asked for.
            work: folder that outlives an interrupted run: what to resume from, loss curves.

        Returns:
            What `apply` needs, by name: the trained parameters, not the frozen encoder.
        """

    def apply(
        self,
        config: Config,
        classes: ClassList,
        checkpoint: Path,
        cams: Iterable[ImageCams],
    ) -> Iterator[Float[np.ndarray, "classes h w"]]:
        """Refined scores of each image, in the order of ``cams``; it may read ahead to batch.

        The scores of an image must not depend on its neighbours in the batch.

        Args:
            config: the sections data, clip, refine and compute.
            classes: the data set's classes.
            checkpoint: what `train` returned, to be read with
                `wsss.artifacts.checkpoint.load_checkpoint`.
            cams: the images.

        Yields:
            Scores in 0 … 1, one map for each of the image's classes, on a grid of any size.
        """
