"""The stage that replaces the tags of a manifest: by CLIP's, by fewer, by wrong ones."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from pathlib import Path

from wsss.artifacts.checksum import write_checked_text
from wsss.artifacts.digest import digest_file
from wsss.artifacts.stage import STAGES
from wsss.artifacts.write_errors import writing
from wsss.clip.tags.predicted import predicted_tags, write_probabilities
from wsss.compute.precision import on_device
from wsss.config.clip import ClipConfig
from wsss.config.compute import ComputeConfig
from wsss.config.data import TagNoiseConfig
from wsss.data.errors import DataError
from wsss.data.manifest import manifest_text, write_manifest
from wsss.data.manifest_folder import (
    CLASSES,
    GIVEN,
    MANIFEST,
    load,
    manifest_digests,
    write_classes,
    write_provenance,
)
from wsss.data.tag_noise import noisy_tags

_log = logging.getLogger(__name__)
CLIP_TAGS = "clip-tags.h5"
"""In the folder of the manifest, with CLIP's tags: the probability of each class."""


@on_device(when=lambda values: values["tag_noise"].source == "clip")
def run(
    given_dir: Path,
    out: Path,
    cache: Path,
    *,
    tag_noise: TagNoiseConfig,
    max_pixels: int,
    clip: ClipConfig,
    compute: ComputeConfig,
) -> None:
    """Write a manifest with other tags, and the given one next to it.

    As at ingest, a training image without a tag is left out. The manifest is written last.

    Args:
        cache: folder for weights and text embeddings.
        tag_noise: what happens to the tags.
        max_pixels: largest photograph that CLIP is shown.
        clip: the encoder that predicts tags.

    Raises:
        ArtifactError: the manifest is missing or damaged.
        ClipLoadError: the encoder cannot be built or its weights do not fit.
        DataError: no training image is left with a tag.
    """
    given, classes = load(given_dir)
    changed = [sample for sample in given if sample.split in tag_noise.splits]
    start = {(s.split, s.id): s.tags for s in changed}
    weights: dict[str, str] = {}
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / MANIFEST).unlink(missing_ok=True)
    if tag_noise.source == "clip":
        for split in tag_noise.splits:
            shard, photos = out / split / CLIP_TAGS, given.split(split).samples
            weights |= write_probabilities(
                shard,
                photos,
                classes,
                cache,
                max_pixels=max_pixels,
                clip=clip,
                device=compute.device,
            )
            predicted = predicted_tags(shard, tag_noise.threshold)
            start |= {(split, image): tags for image, tags in predicted.items()}
    noisy = {
        (s.split, s.id): noisy_tags(s.id, start[s.split, s.id], s.tags, classes.names, tag_noise)
        for s in changed
    }
    samples = [replace(s, tags=noisy.get((s.split, s.id), s.tags)) for s in given]
    used = [sample for sample in samples if sample.tags or sample.split != "train"]
    if any(s.split == "train" for s in given) and not any(s.split == "train" for s in used):
        raise DataError(
            f"tag_noise.dropped: {tag_noise.dropped} leaves no training image a tag; lower it, or "
            "set tag_noise.untagged to keep_one"
        )
    write_manifest(out / GIVEN, given, classes.names)
    write_classes(out / CLASSES, classes)
    outputs = {name: digest_file(out / name) for name in (GIVEN, CLASSES)}
    text = manifest_text(used, classes.names)
    provenance = STAGES["tag_noise"].provenance(
        {"tag_noise": tag_noise, "max_pixels": max_pixels, "clip": clip},
        weights=weights,
        inputs=manifest_digests(given_dir),
        outputs=outputs | {MANIFEST: hashlib.sha256(text.encode()).hexdigest()},
    )
    write_provenance(out, provenance)
    write_checked_text(out / MANIFEST, text)
    _log.info(
        "%d of %d images have other tags; %d are left out, which have none",
        sum(noisy[s.split, s.id] != s.tags for s in changed),
        len(changed),
        len(samples) - len(used),
    )
