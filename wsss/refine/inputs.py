"""What refiners learn from and refine: CAMs, hard seeds, pixel labels; read image by image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, TypeVar

import numpy as np
from jaxtyping import Float16, UInt8

from wsss.artifacts.digest import digest_json
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.provenance import Provenance
from wsss.artifacts.shard import Item, Shard
from wsss.data.manifest import Sample

Self = TypeVar("Self", bound="ShardSet")


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
    """Of each class, where the source gives them."""


class ShardSet:
    """The images of some shards of one kind; use as a context manager.

    Args:
        samples: the images that they may hold: those of one split.

    Raises:
        ArtifactError: a shard is missing or damaged, or holds an image that is no sample or that
            another shard holds as well.
    """

    kind: ClassVar[str]
    """Of the shards."""

    def __init__(self, paths: Sequence[Path], samples: Iterable[Sample]) -> None:
        self._samples = {sample.id: sample for sample in samples}
        self._shards: list[Shard] = []
        self._shard_of: dict[str, Shard] = {}
        try:
            for path in paths:
                self._shards.append(Shard(path, kind=self.kind))
                self._enter(self._shards[-1])
        except ArtifactError:
            self.close()
            raise
        # In the order of the samples: what is learned must not depend on how shards were cut.
        self.ids = [image for image in self._samples if image in self._shard_of]

    def _enter(self, shard: Shard) -> None:
        for image in shard.ids:
            if image not in self._samples:
                raise ArtifactError(
                    f"{shard.path}: holds {image!r}, which the manifest's split does not list; "
                    f"pass shards of that split, or rerun the {self.kind}"
                )
            if image in self._shard_of:
                raise ArtifactError(
                    f"{shard.path}: holds {image!r}, as does {self._shard_of[image].path}; pass "
                    "every shard once"
                )
            self._shard_of[image] = shard

    @property
    def inputs(self) -> dict[str, str]:
        """Digest of each shard's content, for the provenance."""
        return {f"{self.kind}/{shard.path.name}": shard.content for shard in self._shards}

    @property
    def content(self) -> str:
        """Digest of all items, in the order of the samples, however they lie in shards."""
        return digest_json([[image, self.digest(image)] for image in self.ids])

    @property
    def provenances(self) -> dict[Path, Provenance]:
        """How each shard was made."""
        return {shard.path: shard.provenance for shard in self._shards}

    @property
    def weights(self) -> dict[str, str]:
        """sha256 of the weights that the shards were computed with, by name."""
        return {n: d for shard in self._shards for n, d in shard.provenance.weights.items()}

    def missing(self) -> list[str]:
        """Samples that no shard holds."""
        return [image for image in self._samples if image not in self._shard_of]

    def sample(self, image: str) -> Sample:
        """The sample of an id."""
        return self._samples[image]

    def key(self, image: str) -> str:
        """The key of an image's item."""
        return self._shard_of[image].key(image)

    def digest(self, image: str) -> str:
        """Digest of the content of an image's item."""
        return self._shard_of[image].digest(image)

    def item(self, image: str) -> Item:
        """The item of one image.

        Raises:
            ArtifactError: it is damaged.
        """
        return self._shard_of[image].read(image)

    def where(self, image: str) -> str:
        """File and image, for messages."""
        return f"{self._shard_of[image].path}: {image!r}"

    def __len__(self) -> int:
        return len(self.ids)

    def close(self) -> None:
        """Close the shards."""
        for shard in self._shards:
            shard.close()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class CamSet(ShardSet):
    """The images of some CAM shards."""

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
        where = self.where(image)
        if maps is None or initial is None or {len(maps), len(initial)} != {len(classes)}:
            shape = None if maps is None else maps.shape
            raise ArtifactError(
                f"{where} has a CAM of shape {shape} for the classes {list(classes)}; expected "
                "[classes, h, w]; rerun the CAMs"
            )
        if list(item.attrs.get("size", ())) != [sample.height, sample.width]:
            raise ArtifactError(
                f"{where} was made from a photo of (height, width) {item.attrs.get('size')}, the "
                f"manifest says {[sample.height, sample.width]}; rerun the CAMs"
            )
        for array in (maps, initial):
            if array.size and not (array.min() >= 0 and array.max() <= 1):  # false for NaN, too
                raise ArtifactError(
                    f"{where} has CAMs from {array.min()} to {array.max()}, expected 0 … 1 (no "
                    "NaN); rerun the CAMs"
                )
        after, before = (array.astype(np.float16, copy=False) for array in (maps, initial))
        probs = item.attrs.get("probabilities")
        return ImageCams(sample, classes, after, before, None if probs is None else tuple(probs))

    def __getitem__(self, index: int) -> ImageCams:
        return self.read(self.ids[index])


class SeedSet(ShardSet):
    """The hard seeds of images."""

    kind = "seeds"

    def read(self, image: str) -> UInt8[np.ndarray, "height width"]:
        """The seed of an image, at its size: 0 background, class + 1, 255 unknown.

        Raises:
            ArtifactError: the item is damaged, or not what a seed shard holds.
        """
        return _label_map(self, image, "a seed")


class TruthSet(ShardSet):
    """Pixel labels of training images, for the supervised upper bound; there are no CAMs."""

    kind = "truth_masks"

    def read(self, image: str) -> ImageCams:
        """The image, with no class and no map: its labels say all that is learned."""
        nothing = np.zeros((0, 1, 1), np.float16)
        return ImageCams(self.sample(image), (), nothing, nothing, None)

    def labels(self, image: str) -> UInt8[np.ndarray, "height width"]:
        """The label of each pixel: 0 background, class + 1, 255 void.

        Raises:
            ArtifactError: the item is damaged, or of another size than the photo.
        """
        return _label_map(self, image, "pixel labels")


def _label_map(shards: ShardSet, image: str, what: str) -> UInt8[np.ndarray, "height width"]:
    """The array ``train`` of an image, at its size."""
    sample, labels = shards.sample(image), shards.item(image).arrays.get("train")
    if labels is None or labels.shape != (sample.height, sample.width):
        shape = None if labels is None else labels.shape
        raise ArtifactError(
            f"{shards.where(image)} has {what} of shape {shape}, its photo is "
            f"{(sample.height, sample.width)} (height, width); rerun the stage {shards.kind}"
        )
    return labels.astype(np.uint8, copy=False)
