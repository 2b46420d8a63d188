"""The images of the manifest that a shard of scores holds."""

from __future__ import annotations

from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.shard import Shard
from wsss.data.manifest import Manifest, Sample


def samples_of(manifest: Manifest, shard: Shard) -> list[Sample]:
    """The samples of a shard's items, in its order.

    Ids are unique within a split only. An item names its split; one that does not is searched in
    all of them.

    Raises:
        ArtifactError: an image is not in the manifest, is there twice, or had another size.
    """
    candidates: dict[str, list[Sample]] = {}
    for sample in manifest:
        candidates.setdefault(sample.id, []).append(sample)
    return [_choose(candidates.get(image, []), shard, image) for image in shard.ids]


def _choose(candidates: list[Sample], shard: Shard, image: str) -> Sample:
    attrs = shard.attrs(image)
    where = f"{shard.path}: {image!r}"
    if split := attrs.get("split"):
        candidates = [sample for sample in candidates if sample.split == split]
    if not candidates:
        raise ArtifactError(f"{where} is not in the manifest; rerun the stages before")
    if len({sample.digest for sample in candidates}) > 1:
        raise ArtifactError(
            f"{where} names {len(candidates)} photos, one per split, and the shard does not say "
            "which; rerun the refiner"
        )
    sample = candidates[0]
    if list(attrs.get("size", ())) != [sample.height, sample.width]:
        raise ArtifactError(
            f"{where} was made from a photo of (height, width) {attrs.get('size')}, the manifest "
            f"says {[sample.height, sample.width]}; rerun the stages before"
        )
    return sample
