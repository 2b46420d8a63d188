"""The CAMs of images, read from shards one at a time and checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Float16

from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.shard import Shard
from wsss.data.manifest import Sample


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


class CamSet:
    """The images of some CAM shards; use as a context manager.

    Args:
        paths: shards of kind ``cams``.
        samples: the images that they may hold: those of one split.

    Raises:
        ArtifactError: a shard is missing or damaged, or holds an image that is no sample or that
            another shard holds as well.
    """

    def __init__(self, paths: Sequence[Path], samples: Iterable[Sample]) -> None:
        self._samples = {sample.id: sample for sample in samples}
        self._shards: list[Shard] = []
        self._where: dict[str, Shard] = {}
        try:
            for path in paths:
                self._shards.append(Shard(path, kind="cams"))
                self._enter(self._shards[-1])
        except ArtifactError:
            self.close()
            raise
        # In the order of the samples, whatever the shards: what is learned must not depend on them.
        self.ids = [image for image in self._samples if image in self._where]

    def _enter(self, shard: Shard) -> None:
        for image in shard.ids:
            if image not in self._samples:
                raise ArtifactError(
                    f"{shard.path}: holds {image!r}, which the manifest's split does not list; "
                    "pass shards of that split, or rerun the CAMs"
                )
            if image in self._where:
                raise ArtifactError(
                    f"{shard.path}: holds {image!r}, as does {self._where[image].path}; pass "
                    "every shard once"
                )
            self._where[image] = shard

    @property
    def inputs(self) -> dict[str, str]:
        """Digest of each shard's content, for the provenance."""
        return {f"cams/{shard.path.name}": shard.content for shard in self._shards}

    @property
    def weights(self) -> dict[str, str]:
        """sha256 of the weights that made the CAMs, by name."""
        return {n: d for shard in self._shards for n, d in shard.provenance.weights.items()}

    def missing(self) -> list[str]:
        """Samples that no shard holds."""
        return [image for image in self._samples if image not in self._where]

    def sample(self, image: str) -> Sample:
        """The sample of an id."""
        return self._samples[image]

    def key(self, image: str) -> str:
        """The item key of an image's CAM."""
        return self._where[image].key(image)

    def read(self, image: str) -> ImageCams:
        """The CAM of one image: after the affinity if the shard has that, else as it was.

        Raises:
            ArtifactError: the item is damaged, or not what a CAM shard holds.
        """
        shard, sample = self._where[image], self._samples[image]
        item = shard.read(image)
        initial = item.arrays.get("cam")
        maps = item.arrays.get("refined", initial)
        classes = tuple(int(index) for index in item.attrs.get("classes", ()))
        place = f"{shard.path}: {image!r}"
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

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> ImageCams:
        return self.read(self.ids[index])

    def close(self) -> None:
        """Close the shards."""
        for shard in self._shards:
            shard.close()

    def __enter__(self) -> CamSet:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
