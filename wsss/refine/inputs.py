"""The CAMs of images, read from shards one at a time and checked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float16

from wsss.artifacts.errors import ArtifactError
from wsss.data.manifest import Sample
from wsss.refine.shard_set import ShardSet


@dataclass(frozen=True)
class ImageCams:
    """The CAMs of one image."""

    sample: Sample
    """The photo's path, size and tags."""
    classes: tuple[int, ...]
    """0-based class ids of the maps; may be empty."""
    maps: Float16[np.ndarray, "classes h w"]
    """In 0 … 1 on the patch grid: after the affinity, where that is enabled."""
    initial: Float16[np.ndarray, "classes rows columns"]
    """The same before the affinity, on the grid of the CAM source."""
    probabilities: tuple[float, ...] | None
    """Of each class, where the source knows them."""


class CamSet(ShardSet):
    """The images of some CAM shards; use as a context manager."""

    kind = "cams"

    def read(self, image: str) -> ImageCams:
        """The CAM of one image: after the affinity if the shard has that, else as it was.

        Raises:
            ArtifactError: the item is damaged, or not what a CAM shard holds.
        """
        sample, item = self.sample(image), self.item(image)
        initial = item.arrays.get("cam")
        maps = item.arrays.get("cam_affinity", initial)
        classes = tuple(int(index) for index in item.attrs.get("classes", ()))
        place = self.place(image)
        if maps is None or initial is None or {len(maps), len(initial)} != {len(classes)}:
            found = None if maps is None else maps.shape
            raise ArtifactError(
                f"{place} has a CAM of shape {found} for the classes {list(classes)}; expected "
                "[classes, h, w]; rerun the CAMs"
            )
        if list(item.attrs.get("size", ())) != [sample.height, sample.width]:
            raise ArtifactError(
                f"{place} was made from a photo of (height, width) {item.attrs.get('size')}, the "
                f"manifest says {[sample.height, sample.width]}; rerun the CAMs"
            )
        if not (np.isfinite(maps).all() and np.isfinite(initial).all()):
            raise ArtifactError(f"{place} has NaN or infinite values; rerun the CAMs")
        after, before = (array.astype(np.float16, copy=False) for array in (maps, initial))
        known = item.attrs.get("probabilities")
        return ImageCams(sample, classes, after, before, None if known is None else tuple(known))

    def __getitem__(self, index: int) -> ImageCams:
        return self.read(self.ids[index])
