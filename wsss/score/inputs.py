"""What a score is computed from: the images of a split, their truth, and the product's shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsss.artifacts.provenance import Provenance
from wsss.artifacts.shard import Shard
from wsss.config.data import DataConfig, TagNoiseConfig
from wsss.data.counted import list_images
from wsss.data.manifest import Manifest
from wsss.data.manifest_folder import load, load_given, manifest_digests
from wsss.score.chain import Chain
from wsss.score.metrics.counting import Image, Part, ProductError
from wsss.score.tag_quality import TagQuality
from wsss.score.truth.find import Truth, find_truth
from wsss.score.truth.find import corrections_digest as corrections_digest

_IMAGES_PER_PART = 32


@dataclass(frozen=True)
class Inputs:
    """A product of one split, ready to be counted in parts."""

    labels: tuple[str, ...]
    """Label names, background first."""
    truth: Truth
    parts: tuple[Part, ...]
    arrays: frozenset[str]
    """Arrays of the first item; empty without shards."""
    digests: dict[str, str]
    """Of the manifest and of each shard, by file name."""
    shard_provenance: tuple[Provenance, ...]
    """How the shards were made; without their inputs; equal ones stand once."""
    learned: dict[str, int]
    """Of mixed supervision: the images that each kind of masks taught."""
    tags: dict[str, tuple[int, ...]]
    """The given tags of each image, 0-based."""
    tag_quality: TagQuality | None
    """How far the tags in use agree with them; None: they are these."""

    @property
    def images(self) -> int:
        """Number of images that are scored."""
        return sum(len(part.images) for part in self.parts)

    @property
    def weights(self) -> dict[str, str]:
        """sha256 of the weight files behind the shards, by name."""
        return {name: sha for p in self.shard_provenance for name, sha in p.weights.items()}

    @staticmethod
    def open(
        data: DataConfig,
        tag_noise: TagNoiseConfig,
        manifest_dir: Path,
        split: str,
        shards: Sequence[Path],
        kind: str,
        expected: Provenance,
    ) -> Inputs:
        """Match shards, manifest and truth.

        Args:
            tag_noise: whether the tags in use are the given ones.
            manifest_dir: what ingest wrote, or tag-noise.
            split: ``train`` or ``val``.
            shards: files that together hold exactly the images of the split.
            kind: of the shards; empty: the product has none.
            expected: the settings by which the shards must have been made.

        Raises:
            ProductError: the shards hold other images, or they or what they were made from, its
                tags included, were made in another way than expected.
            TruthError: ground truth is missing.
            ArtifactError: the split has no images, or a shard is missing, damaged or of another
                kind.
        """
        whole, classes = load(manifest_dir)
        given = load_given(manifest_dir)
        quality = _compare_tags(manifest_dir, whole, given, tag_noise)
        manifest = whole.split(split)
        truth = find_truth(data, manifest, split)
        images = {
            sample.id: Image(
                sample.id, sample.height, sample.width, sample.tags, truth.sources[sample.id]
            )
            for sample in manifest
            if sample.id in truth.sources
        }
        digests = manifest_digests(manifest_dir)
        chain = Chain(expected, digests)
        digests["truth"] = truth.digest()
        parts = [] if kind else _cut(None, tuple(images.values()))
        ids: list[tuple[Path, list[str]]] = []
        provenance: list[Provenance] = []
        learned: dict[str, int] = {}
        arrays: frozenset[str] = frozenset()
        for path in shards if kind else ():
            with Shard(path, kind=kind) as shard:
                ids.append((path, shard.ids))
                digests[path.name] = shard.content
                chain.add(path, shard.provenance)
                for entry in shard.provenance.chain():
                    learned |= entry.learned
                provenance.append(
                    shard.provenance.model_copy(update={"inputs": {}, "upstream": ()})
                )
                if not arrays and shard.ids:
                    arrays = frozenset(shard.read(shard.ids[0]).arrays)
            parts += _cut(path, tuple(images[i] for i in ids[-1][1] if i in images))
        if kind:
            _check_ids(manifest, ids, split)
        labels = ("background", *classes.names)
        distinct = {entry.key(): entry for entry in provenance}
        tags = {sample.id: sample.tags for sample in (given or whole).split(split)}
        return Inputs(
            labels=labels,
            truth=truth,
            parts=tuple(parts),
            arrays=arrays,
            digests=digests,
            shard_provenance=tuple(distinct.values()),
            learned=learned,
            tags=tags,
            tag_quality=quality,
        )


def truth_digest(data: DataConfig, manifest: Manifest, split: str) -> str:
    """The digest of the truth of a split, as it stands in the inputs of its scores.

    Args:
        manifest: the images of the split.
        split: ``train`` or ``val``.

    Raises:
        TruthError: ground truth is missing.
    """
    return find_truth(data, manifest, split).digest()


def _compare_tags(
    manifest_dir: Path, manifest: Manifest, given: Manifest | None, noise: TagNoiseConfig
) -> TagQuality | None:
    """Compare the tags of a manifest with the given ones; None where they are the given ones.

    Args:
        manifest_dir: where both lie, for messages.
        manifest: the images with the tags that were used.
        given: with the tags of the data set, see `load_given`.
        noise: ``tag_noise``, which must say whether they differ.

    Raises:
        ProductError: the manifest has other tags although nothing of it is configured, or the
            other way round.
    """
    if (given is not None) != noise.enabled:
        has, says = ("has", "no") if given else ("has not", "such")
        raise ProductError(
            f"{manifest_dir}: {has} tags that differ on purpose, tag_noise asks for {says} tags; "
            "pass the folder of `wsss tag-noise` where the configuration has tag_noise, else that "
            "of `wsss ingest`"
        )
    if given is None:
        return None
    used = {(s.split, s.id): set(s.tags) for s in manifest if s.split in noise.splits}
    expected = {(s.split, s.id): set(s.tags) for s in given if s.split in noise.splits}
    common = sum(len(tags & used.get(image, set())) for image, tags in expected.items())
    in_use, in_all = sum(map(len, used.values())), sum(map(len, expected.values()))
    return TagQuality(
        noise=noise.effective(),
        images=len(expected),
        left_out=len(expected) - len(used),
        precision=common / in_use if in_use else None,
        recall=common / in_all if in_all else None,
    )


def _cut(shard: Path | None, images: tuple[Image, ...]) -> list[Part]:
    starts = range(0, len(images), _IMAGES_PER_PART)
    return [Part(shard, images[start : start + _IMAGES_PER_PART]) for start in starts]


def _check_ids(manifest: Manifest, shards: Sequence[tuple[Path, list[str]]], split: str) -> None:
    expected = {sample.id for sample in manifest}
    seen: set[str] = set()
    for path, ids in shards:
        unknown = [image for image in ids if image not in expected]
        twice = [image for image in ids if image in seen]
        if unknown:
            raise ProductError(
                f"{path}: holds {list_images(unknown)} that the split {split!r} does not have; "
                "pass the shards of this split, or rerun the stage that makes them"
            )
        if twice:
            raise ProductError(
                f"{path}: holds {list_images(twice)} that an earlier shard holds as well; "
                "pass every shard once, all from the same run"
            )
        seen.update(ids)
    missing = [sample.id for sample in manifest if sample.id not in seen]
    if missing:
        raise ProductError(
            f"the {len(shards)} shards lack {list_images(missing)} of the split {split!r}; "
            "pass all shards of the split"
        )
