"""Shards that together hold something of every image of a split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, TypeVar

from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.shard import Item, Shard
from wsss.data.manifest import Sample

Own = TypeVar("Own", bound="ShardSet")


class ShardSet:
    """The images of some shards of a kind; use as a context manager.

    Args:
        paths: the shards.
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
        self._where: dict[str, Shard] = {}
        try:
            for path in paths:
                self._shards.append(Shard(path, kind=self.kind))
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
                    f"pass shards of that split, or rerun the {self.kind}"
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
        return {f"{self.kind}/{shard.path.name}": shard.content for shard in self._shards}

    @property
    def weights(self) -> dict[str, str]:
        """sha256 of the weights that made them, by name."""
        return {n: d for shard in self._shards for n, d in shard.provenance.weights.items()}

    def missing(self) -> list[str]:
        """Samples that no shard holds."""
        return [image for image in self._samples if image not in self._where]

    def sample(self, image: str) -> Sample:
        """The sample of an id."""
        return self._samples[image]

    def key(self, image: str) -> str:
        """The key of an image's item."""
        return self._where[image].key(image)

    def item(self, image: str) -> Item:
        """The item of one image.

        Raises:
            ArtifactError: it is damaged.
        """
        return self._where[image].read(image)

    def place(self, image: str) -> str:
        """Where the item of an image is, for messages."""
        return f"{self._where[image].path}: {image!r}"

    def __len__(self) -> int:
        return len(self.ids)

    def close(self) -> None:
        """Close the shards."""
        for shard in self._shards:
            shard.close()

    def __enter__(self: Own) -> Own:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
