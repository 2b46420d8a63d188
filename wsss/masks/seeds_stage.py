"""The seeds stage: one shard of CAMs to hard labels that a refiner learns from.

Seeds are made as pseudo masks are, but straight from the CAMs, by a rule of their own. Hard seeds
that were imported (``cams.external.layout: png``) are taken as they are.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from wsss.artifacts.digest import digest_file, digest_json
from wsss.artifacts.provenance import provenance
from wsss.cams.external.seed_files import read_hard
from wsss.config.model import Config
from wsss.config.paths import expand_path
from wsss.data.manifest import Sample
from wsss.data.manifest_folder import load
from wsss.masks.make import MaskTask
from wsss.masks.make_seed import make_seed
from wsss.masks.store import write_products
from wsss.refine.inputs import CamSet


def run(config: Config, manifest_dir: Path, split: str, cams: Path, out: Path, png: Path) -> None:
    """Write the seeds of one shard.

    Items have the arrays ``label`` (0 background, class + 1) and ``train`` (the same, 255 where the
    rule is unsure), both uint8 [H, W], and the attributes of pseudo masks.

    Args:
        config: data, cams, seeds and compute.
        manifest_dir: what ingest wrote.
        split: to which the shard belongs.
        cams: the CAM shard; maps after the affinity are taken where there are such.
        out: shard of kind ``seeds`` to write.
        png: folder to write ``label/<id>.png`` and ``train/<id>.png`` to.

    Raises:
        ArtifactError: the shard is missing or damaged, or does not fit the manifest or the photos.
        SeedError: an imported seed cannot be read.
        WorkerError: work on an image failed, or a worker process was killed.
    """
    manifest, _ = load(manifest_dir)
    external = config.cams.external
    hard = config.cams.source == "external" and external.layout == "png"
    folder = expand_path(external.path) if hard else None
    with CamSet([cams], manifest.split(split)) as images:
        made = provenance(
            "seeds",
            entry=("wsss.masks.seeds_stage",),
            sections={"seeds": config.seeds, "external": external},
            seed=0,  # nothing is random here
            weights=images.weights,
            inputs=images.inputs | {"manifest": digest_file(manifest_dir / "manifest.csv")},
        )
        stage_key = made.key()
        samples = [images.sample(image) for image in images.ids]
        keys = {
            s.id: digest_json([stage_key, s.digest, list(s.tags), images.key(s.id)])
            for s in samples
        }
        write_products(
            out,
            png,
            "seeds",
            samples,
            keys,
            functools.partial(_task, images, folder),
            functools.partial(make_seed, config=config.seeds, max_pixels=config.data.max_pixels),
            made,
            crf=config.seeds.crf,
            workers=config.compute.workers,
            description="Seeds",
        )


def _task(images: CamSet, folder: Path | None, sample: Sample) -> MaskTask:
    size = (sample.height, sample.width)
    if folder is not None:
        labels = read_hard(folder / f"{sample.id}.png", sample.tags, size)
        none = np.zeros((0, 1, 1), np.float16)
        return MaskTask(sample.path, *size, tuple(sample.tags), none, hard=labels)
    cams = images.read(sample.id)
    return MaskTask(sample.path, *size, cams.classes, cams.maps)
