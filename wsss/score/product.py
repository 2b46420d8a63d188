"""What is scored: the images of a split, their truth, and the shards that hold the product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss.artifacts.digest import digest_file
from wsss.artifacts.provenance import Provenance, provenance
from wsss.artifacts.shard import Shard
from wsss.config.model import Config
from wsss.data.manifest import Manifest
from wsss.data.manifest_folder import load
from wsss.score.metrics.counting import Image, Part, ProductError
from wsss.score.truth.find import Truth, find_truth

_IMAGES_A_PART = 32
_NAMED = 8


@dataclass(frozen=True)
class Product:
    """A product of one split, ready to be counted in parts."""

    split: str
    names: tuple[str, ...]
    """Label names, background first."""
    truth: Truth
    parts: tuple[Part, ...]
    arrays: frozenset[str]
    """Arrays of the first item; empty without shards."""
    weights: dict[str, str]
    provenance: Provenance
    provenance_config: dict[str, Any]
    """The sections with which the shards were made."""

    @property
    def count(self) -> int:
        """Number of images that are scored."""
        return sum(len(part.images) for part in self.parts)

    @staticmethod
    def open(
        config: Config,
        manifest_dir: Path,
        split: str,
        shards: Sequence[Path] | None,
        kind: str | None,
    ) -> Product:
        """Match shards, manifest and truth.

        Args:
            config: the configuration of the score stage.
            manifest_dir: what ingest wrote.
            split: ``train`` or ``val``.
            shards: files that together hold exactly the images of the split; None: no files.
            kind: of the shards.

        Raises:
            ProductError: the split has no images, or the shards hold other images.
            TruthError: ground truth is missing.
            ArtifactError: a shard is missing, damaged or of another kind.
        """
        manifest, classes = load(manifest_dir)
        manifest = manifest.split(split)
        if not len(manifest):
            raise ProductError(
                f"{manifest_dir}: the split {split!r} has no images; nothing to score"
            )
        truth = find_truth(config, manifest, split)
        images = {
            sample.id: Image(
                sample.id, sample.height, sample.width, sample.tags, truth.sources[sample.id]
            )
            for sample in manifest
            if sample.id in truth.sources
        }
        inputs = {"manifest": digest_file(manifest_dir / "manifest.csv")}
        weights: dict[str, str] = {}
        made_with: dict[str, Any] = {}
        arrays: frozenset[str] = frozenset()
        if shards is None:
            parts = _cut(None, tuple(images.values()))
        else:
            parts = []
            holds: list[tuple[Path, list[str]]] = []
            for path in shards:
                with Shard(path, kind=kind) as shard:
                    holds.append((path, shard.ids))
                    inputs[path.name] = shard.content
                    weights |= shard.provenance.weights
                    made_with |= shard.provenance.config
                    if not arrays and shard.ids:
                        arrays = frozenset(shard.read(shard.ids[0]).arrays)
                parts += _cut(path, tuple(images[i] for i in holds[-1][1] if i in images))
            _check_ids(manifest, holds, split)
        sections = {
            "data": config.data,
            "cams": config.cams,
            "refine": config.refine,
            "infer": config.infer,
            "masks": config.masks,
            "score": config.score,
        }
        made = provenance(
            "score",
            entry=("wsss.score.stage",),
            sections=sections,
            seed=config.seed,
            weights=weights,
            inputs=inputs,
        )
        names = ("background", *classes.names)
        return Product(split, names, truth, tuple(parts), arrays, weights, made, made_with)


def _cut(shard: Path | None, images: tuple[Image, ...]) -> list[Part]:
    starts = range(0, len(images), _IMAGES_A_PART)
    return [Part(shard, images[start : start + _IMAGES_A_PART]) for start in starts]


def _check_ids(manifest: Manifest, holds: Sequence[tuple[Path, list[str]]], split: str) -> None:
    expected = {sample.id for sample in manifest}
    seen: set[str] = set()
    for path, ids in holds:
        unknown = [image for image in ids if image not in expected]
        twice = [image for image in ids if image in seen]
        if unknown:
            raise ProductError(
                f"{path}: holds {name_some(unknown)} that the split {split!r} does not have; "
                "pass the shards of this split, or rerun the stage that makes them"
            )
        if twice:
            raise ProductError(
                f"{path}: holds {name_some(twice)} that an earlier shard holds as well; "
                "pass every shard once, all from the same run"
            )
        seen.update(ids)
    left = [sample.id for sample in manifest if sample.id not in seen]
    if left:
        raise ProductError(
            f"the {len(holds)} shards lack {name_some(left)} of the split {split!r}; "
            "pass all shards of the split"
        )


def name_some(images: Sequence[str]) -> str:
    """``9 images ('a', 'b' … and 1 more)``."""
    named = ", ".join(map(repr, images[:_NAMED]))
    more = f" and {len(images) - _NAMED} more" if len(images) > _NAMED else ""
    return f"{len(images)} images ({named}{more})"
