"""The seeds of images, read from shards one at a time and checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from wsss.artifacts.errors import ArtifactError
from wsss.data.manifest import Sample
from wsss.refine.shards import ShardSet


class SeedSet(ShardSet):
    """The images of some seed shards; use as a context manager.

    Args:
        paths: shards of kind ``seeds``.
        samples: the images that they may hold: those of one split.

    Raises:
        ArtifactError: a shard is missing or damaged, or holds an image that is no sample or that
            another shard holds as well.
    """

    def __init__(self, paths: Sequence[Path], samples: Iterable[Sample]) -> None:
        super().__init__(paths, "seeds", samples)

    def read(self, image: str) -> UInt8[np.ndarray, "height width"]:
        """The seed of an image, at its size: 0 background, class + 1, 255 unknown.

        Raises:
            ArtifactError: the item is damaged, or not what a seed shard holds.
        """
        sample, item = self.sample(image), self.item(image)
        labels = item.arrays.get("train")
        if labels is None or labels.shape != (sample.height, sample.width):
            found = None if labels is None else labels.shape
            raise ArtifactError(
                f"{self.place(image)} has a seed of shape {found}, its photo is "
                f"{(sample.height, sample.width)} (height, width); rerun the seeds"
            )
        return labels.astype(np.uint8, copy=False)
