"""The CAM stage: one part of a split to one shard of class activation maps."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from wsss.artifacts.digest import digest_files, digest_json
from wsss.artifacts.item_cache import write_items
from wsss.artifacts.shard import Item
from wsss.artifacts.stage import STAGES
from wsss.cams.clip_sources import ClipSource
from wsss.cams.external.source import ExternalSource, seed_files
from wsss.cams.maps import CamMaps
from wsss.cams.other_features import load_dino
from wsss.cams.patch_affinity import check_compares_texts
from wsss.clip.input import EncoderInput
from wsss.clip.text.embeddings import text_bank
from wsss.compute.precision import on_device
from wsss.config.cams import CamsConfig
from wsss.config.clip import ClipConfig, DinoConfig, encoder_module
from wsss.config.compute import ComputeConfig
from wsss.data.datasets.classes import ClassList
from wsss.data.manifest_folder import load, manifest_digests


def _encodes(values: Mapping[str, Any]) -> bool:
    """Whether CLIP computes anything; else the CAMs are imported as they are."""
    return bool(values["cams"].has_affinity or values["cams"].source != "external")


@on_device(when=_encodes)
def run(
    manifest_dir: Path,
    split: str,
    shard: tuple[int, int],
    out: Path,
    cache: Path,
    *,
    max_pixels: int,
    clip: ClipConfig,
    dino: DinoConfig,
    cams: CamsConfig,
    compute: ComputeConfig,
) -> None:
    """Write the CAMs of one part of a split.

    Items have the array ``cam`` float16 [K, h, w], in 0 … 1 on the source's grid, and, where the
    affinity is on, ``cam_affinity``, the same on the encoder's patch grid (for `grad_cam` the
    source's own); one row per tag of the image, in the manifest's order. Attributes: ``classes``
    (0-based), ``grid`` of ``cam`` and ``size`` of the image (both height, width), ``split``, and
    ``probabilities`` of the classes where the source knows them.

    Args:
        split: ``train`` or ``val``.
        shard: part and number of parts, 1-based.
        out: shard of kind ``cams`` to write.
        max_pixels: largest photograph that is read.
        dino: a second one, which only an affinity of kind ``dino`` reads.
        cams: the source and the affinity.

    Raises:
        ArtifactError: the manifest is missing or damaged.
        ClipLoadError: the encoder cannot be built or its weights do not fit.
        KnowledgeError: TSE is on and a class has no description.
        SeedError: external seeds are missing, unreadable or of another size.
        ValueError: images are too large for the encoder's attention.
    """
    manifest, classes = load(manifest_dir)
    samples = {sample.id: sample for sample in manifest.split(split).shard(*shard).samples}
    values: dict[str, Any] = {"max_pixels": max_pixels, "clip": clip, "dino": dino, "cams": cams}
    # Only the first part reports seeds of images that are not in the run.
    ids = {sample.id for sample in manifest} if shard[0] == 1 else None
    source = make_source(classes, cache, ids, **values, compute=compute)
    inputs = manifest_digests(manifest_dir)
    if cams.source == "external":
        inputs["external"] = digest_files(seed_files(cams.external, samples))
    provenance = STAGES["cams"].provenance(
        values,
        modules=map(encoder_module, cams.other_encoders),
        weights=source.weights,
        inputs=inputs,
    )
    stage_key = provenance.key()
    keys = {
        s.id: digest_json([stage_key, split, source.key(s), s.digest, list(s.tags)])
        for s in samples.values()
    }

    def compute_items(missing: list[str]) -> Iterator[Item]:
        for maps in source.maps([samples[image] for image in missing]):
            yield _item(maps, keys[maps.sample.id], split)

    write_items(
        out,
        kind="cams",
        keys=keys,
        provenance=provenance,
        compute=compute_items,
        description=f"CAMs of {split}",
    )


def make_source(
    classes: ClassList,
    cache: Path,
    ids: Collection[str] | None = None,
    *,
    max_pixels: int,
    clip: ClipConfig,
    dino: DinoConfig,
    cams: CamsConfig,
    compute: ComputeConfig,
) -> ClipSource | ExternalSource:
    """The configured CAM source; ``ids`` as in `wsss.cams.external.source.ExternalSource`."""
    external = cams.source == "external"
    inputs, other = None, None
    if cams.has_affinity or not external:
        inputs = EncoderInput(clip, cache, max_pixels=max_pixels, device=compute.device)
        if cams.other_encoders:
            other = load_dino(dino, inputs.normalization, cache, compute.device)
    if external or inputs is None:
        bank, words = None, ""
        if inputs is not None and cams.compares_texts:
            check_compares_texts(inputs.encoder)
            prompts = (classes.prompts, classes.backgrounds)
            bank = text_bank(inputs.clip, *prompts, clip.template, cache_dir=cache)
            bank, words = bank.to(inputs.encoder.device), digest_json(prompts)
        return ExternalSource(cams, inputs, ids, bank, words, other)
    return ClipSource(inputs, classes, clip.template, cams, compute, cache, other)


def _item(maps: CamMaps, key: str, split: str) -> Item:
    arrays = {"cam": maps.cam}
    if maps.cam_affinity is not None:
        arrays["cam_affinity"] = maps.cam_affinity
    sample = maps.sample
    attrs: dict[str, Any] = {
        "classes": list(sample.tags),
        "grid": list(maps.cam.shape[1:]),
        "size": [sample.height, sample.width],
        "split": split,
    }
    if maps.probabilities is not None:
        attrs["probabilities"] = list(maps.probabilities)
    return Item(sample.id, arrays, attrs, key)
