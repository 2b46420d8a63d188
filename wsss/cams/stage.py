"""The CAM stage: one part of a split to one shard of class activation maps."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

from wsss.artifacts.digest import digest_file, digest_json
from wsss.artifacts.item_cache import ItemCache
from wsss.artifacts.progress import track
from wsss.artifacts.provenance import provenance
from wsss.artifacts.shard import Item, ShardWriter
from wsss.cams.sources import CamMaps, CamSource
from wsss.config.model import Config
from wsss.data.datasets.classes import ClassList
from wsss.data.manifest_folder import load

_log = logging.getLogger(__name__)


def run(
    config: Config, manifest_dir: Path, split: str, shard: tuple[int, int], out: Path, cache: Path
) -> None:
    """Write the CAMs of one part of a split.

    Items have the array ``cam`` float16 [K, h, w], in 0 … 1 on the source's grid, and, where the
    affinity is on, ``refined``, the same on the encoder's patch grid (for `grad_cam` the source's
    own); one row a tag of the image, in the manifest's order. Attributes: ``classes`` (0-based),
    ``grid`` of ``cam`` and ``size`` of the image (both height, width), and ``probabilities`` of the
    classes where the source knows them.

    Args:
        config: data, clip, cams and compute.
        manifest_dir: what ingest wrote.
        split: ``train`` or ``val``.
        shard: part and number of parts, 1-based.
        out: shard of kind ``cams`` to write.
        cache: folder for text embeddings.

    Raises:
        ArtifactError: the manifest is missing or damaged.
        ClipLoadError: the encoder cannot be built or its weights do not fit.
        KnowledgeError: TSE is on and a class has no description.
        SeedError: external seeds are missing, unreadable or of another size.
        ValueError: images are too large for the encoder's attention.
    """
    manifest, classes = load(manifest_dir)
    samples = manifest.split(split).shard(*shard).samples
    # One part of the parts tells of seeds that no image of the run asks for.
    known = {sample.id for sample in manifest} if shard[0] == 1 else None
    source = make_source(config, classes, cache, known)
    made = provenance(
        "cams",
        entry=("wsss.cams.stage",),
        sections=dict(source.sections),
        seed=0,  # nothing is random here
        weights=dict(source.weights),
        inputs={"manifest": digest_file(manifest_dir / "manifest.csv")},
    )
    stage_key = made.key()
    keys = {s.id: digest_json([stage_key, source.key(s), s.digest, list(s.tags)]) for s in samples}
    kept = ItemCache(out, kind="cams")
    ids = [sample.id for sample in samples]
    with ShardWriter(out, kind="cams", ids=ids, provenance=made) as writer:
        todo = []
        for sample in samples:
            if old := kept.find(sample.id, keys[sample.id]):
                writer.add(old)
            else:
                todo.append(sample)
        for found in track(source.maps(todo), total=len(todo), description=f"CAMs of {split}"):
            writer.add(_item(found, keys[found.sample.id]))
    kept.store()
    _log.info("%d images: %d reused, %d computed", len(ids), len(ids) - len(todo), len(todo))


def make_source(
    config: Config, classes: ClassList, cache: Path, known: Collection[str] | None = None
) -> CamSource:
    """The configured CAM source; ``known`` as `wsss.cams.external.source.ExternalSource`."""
    if config.cams.source == "external":
        from wsss.cams.external.source import ExternalSource

        return ExternalSource(config, cache, known)
    from wsss.cams.clip_sources import GradCamSource, PatchTextSource

    kind = PatchTextSource if config.cams.source == "patch_text" else GradCamSource
    return kind(config, classes, cache)


def _item(found: CamMaps, key: str) -> Item:
    arrays = {"cam": found.cam}
    if found.refined is not None:
        arrays["refined"] = found.refined
    sample = found.sample
    attrs: dict[str, Any] = {
        "classes": list(sample.tags),
        "grid": list(found.cam.shape[1:]),
        "size": [sample.height, sample.width],
    }
    if found.probabilities is not None:
        attrs["probabilities"] = list(found.probabilities)
    return Item(sample.id, arrays, attrs, key)
