"""The seeds of images, read from shards one at a time and checked."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from wsss.artifacts.errors import ArtifactError
from wsss.refine.shard_set import ShardSet


class SeedSet(ShardSet):
    """The images of some seed shards; use as a context manager."""

    kind = "seeds"

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
