"""The masks stage: one shard of class scores to one shard of pseudo masks and a folder of PNGs."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from wsss.artifacts.digest import digest_file, digest_json
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.provenance import provenance
from wsss.artifacts.shard import Shard
from wsss.config.model import Config
from wsss.data.manifest import Sample
from wsss.data.manifest_folder import load
from wsss.masks.make import MaskTask, make_mask
from wsss.masks.samples import samples_of
from wsss.masks.store import write_products


def run(config: Config, manifest_dir: Path, scores: Path, out: Path, png: Path) -> None:
    """Write the pseudo masks of one shard.

    Items of ``out`` have the arrays ``label`` (0 background, class id + 1) and ``train`` (the same,
    255 where the largest posterior is below ``masks.min_confidence``), both uint8 [H, W], and the
    attributes ``size``, ``classes`` and ``confident`` (share of ``train`` that is not 255). An
    image without classes is background in ``label`` and 255 in ``train``. The content does not
    depend on the number of workers or shards.

    Args:
        config: data, masks and compute.
        manifest_dir: what ingest wrote.
        scores: shard of kind ``scores``.
        out: shard of kind ``masks`` to write.
        png: folder to write ``label/<id>.png`` and ``train/<id>.png`` to, palette PNGs; an older
            one is replaced.

    Raises:
        ArtifactError: the shard is missing or damaged, or does not fit the manifest or the photos.
        WorkerError: work on an image failed, or a worker process was killed.
    """
    manifest, classes = load(manifest_dir)
    with Shard(scores, kind="scores") as shard:
        samples = samples_of(manifest, shard)
        made = provenance(
            "masks",
            entry=("wsss.masks.stage",),
            sections={"masks": config.masks},
            seed=0,  # nothing is random here
            weights=shard.provenance.weights,
            inputs={
                "scores": shard.content,
                "manifest": digest_file(manifest_dir / "manifest.csv"),
            },
        )
        keys = {
            sample.id: digest_json(
                [made.key(), sample.digest, list(sample.tags), shard.key(sample.id)]
            )
            for sample in samples
        }
        write_products(
            out,
            png,
            "masks",
            samples,
            keys,
            lambda sample: _task(shard, sample, len(classes.names)),
            functools.partial(make_mask, config=config.masks, max_pixels=config.data.max_pixels),
            made,
            crf=config.masks.crf,
            workers=config.compute.workers,
            description="Masks",
        )


def _task(shard: Shard, sample: Sample, count: int) -> MaskTask:
    item = shard.read(sample.id)
    place = f"{shard.path}: {sample.id!r}"
    maps, classes = item.arrays.get("score"), item.attrs.get("classes", [])
    if maps is None or maps.ndim != 3 or len(maps) != len(classes):
        found = None if maps is None else maps.shape
        raise ArtifactError(
            f"{place} has scores of shape {found} for the classes {classes}; expected "
            "[classes, h, w]; rerun the refiner"
        )
    if not all(0 <= index < count for index in classes):
        raise ArtifactError(
            f"{place} has the classes {classes}, but the class list ends at {count - 1}; rerun the "
            "refiner"
        )
    background = item.arrays.get("background")
    for array in (maps, background):
        if array is not None and array.size and not (array.min() >= 0 and array.max() <= 1):
            raise ArtifactError(  # NaN comes here, too
                f"{place} has scores from {array.min()} to {array.max()}, expected 0 … 1; rerun "
                "the refiner"
            )
    if background is not None and background.shape != maps.shape[1:]:
        raise ArtifactError(
            f"{place} has a background of {background.shape} beside scores of {maps.shape}; rerun "
            "the refiner"
        )
    own = None if background is None else background.astype(np.float16, copy=False)
    scores = maps.astype(np.float16, copy=False)
    return MaskTask(sample.path, sample.height, sample.width, tuple(classes), scores, own)
