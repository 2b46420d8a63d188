"""The seeds stage: one shard of CAMs to hard labels that a refiner learns from.

Seeds are made like pseudo masks, but straight from the CAMs, by a rule of their own. Imported hard
labels (``cams.external.layout: png``) are used as they are.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from wsss.artifacts.digest import digest_file
from wsss.artifacts.stage import STAGES
from wsss.cams.external.seed_files import read_hard_labels
from wsss.config.cams import CamsConfig
from wsss.config.compute import ComputeConfig
from wsss.config.labels import SeedsConfig
from wsss.config.paths import expand_path
from wsss.data.manifest import Sample
from wsss.data.manifest_folder import load, manifest_digests
from wsss.masks.make import MaskTask, make_seeds
from wsss.masks.store import write_products
from wsss.refine.inputs import CamSet


def run(
    manifest_dir: Path,
    split: str,
    cam_shard: Path,
    out: Path,
    png: Path,
    *,
    max_pixels: int,
    cams: CamsConfig,
    seeds: SeedsConfig,
    compute: ComputeConfig,
) -> None:
    """Write the seeds of one shard.

    Items have the arrays ``label`` (0 background, class + 1) and ``train`` (the same, 255 in the
    ignore band), both uint8 [H, W], and the attributes of pseudo masks.

    Args:
        cam_shard: the CAMs; those after the affinity are used where the shard has them.
        out: shard of kind ``seeds`` to write.
        png: folder to write ``label/<id>.png`` and ``train/<id>.png`` to.
        max_pixels: largest photo that is read.
        seeds: background rule and CRF.

    Raises:
        ArtifactError: the shard is missing or damaged, or does not fit the manifest or the photos.
        SeedError: an imported seed cannot be read.
        WorkerError: work on an image failed, or a worker process was killed.
    """
    manifest, _ = load(manifest_dir)
    imported = cams.source == "external" and cams.external.layout == "png"
    folder = expand_path(cams.external.path) if imported else None
    with CamSet([cam_shard], manifest.split(split)) as images:
        provenance = STAGES["seeds"].provenance(
            {"max_pixels": max_pixels, "cams": cams, "seeds": seeds},
            weights=images.weights,
            inputs=images.inputs | manifest_digests(manifest_dir),
            sources=images.provenances,
        )
        write_products(
            out,
            png,
            [images.sample(image) for image in images.ids],
            provenance=provenance,
            input_key=functools.partial(_input_key, images, folder),
            task=functools.partial(_task, images, folder),
            work=functools.partial(make_seeds, config=seeds, max_pixels=max_pixels),
            crf=seeds.crf,
            workers=compute.workers,
        )


def _input_key(images: CamSet, folder: Path | None, image: str) -> str:
    """Of the CAM, or of the file of imported labels, which may have changed since."""
    if folder is None:
        return images.key(image)
    path = _hard_labels(folder, image)
    return digest_file(path) if path.is_file() else ""


def _task(images: CamSet, folder: Path | None, sample: Sample) -> MaskTask:
    size = (sample.height, sample.width)
    if folder is not None:
        labels = read_hard_labels(_hard_labels(folder, sample.id), sample.tags, size)
        no_scores = np.zeros((0, 1, 1), np.float16)
        tags = tuple(sample.tags)
        return MaskTask(sample.path, sample.digest, *size, tags, no_scores, imported=labels)
    cams = images.read(sample.id)
    return MaskTask(sample.path, sample.digest, *size, cams.classes, cams.maps)


def _hard_labels(folder: Path, image: str) -> Path:
    return folder / f"{image}.png"
