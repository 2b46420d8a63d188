"""The masks stage: one shard of class scores to one shard of pseudo masks and a folder of PNGs."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from wsss.artifacts.digest import digest_file, digest_files, digest_json
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.shard import Shard
from wsss.artifacts.stage import STAGES
from wsss.config.base import Supervision
from wsss.config.compute import ComputeConfig
from wsss.config.labels import MasksConfig
from wsss.config.paths import expand_path
from wsss.data.manifest import Sample
from wsss.data.manifest_folder import load, manifest_digests
from wsss.masks.make import MaskTask, make_mask
from wsss.masks.proposal_files import check_files, proposal_files, proposal_path
from wsss.masks.samples import samples_of
from wsss.masks.store import write_products

_ARRAYS = {"scores": ("score",), "cams": ("cam_affinity", "cam")}
"""Arrays that may hold the class scores of an item, the first one preferred, by kind of shard."""


def run(
    manifest_dir: Path,
    scores: Path,
    out: Path,
    png: Path,
    *,
    supervision: Supervision,
    max_pixels: int,
    masks: MasksConfig,
    compute: ComputeConfig,
) -> None:
    """Write the pseudo masks of one shard.

    Items of ``out`` have the arrays ``label`` (0 background, class id + 1) and ``train`` (the same,
    255 where ``masks.min_confidence`` or ``masks.min_score`` find the label uncertain), both uint8
    [H, W], and the attributes ``size``, ``classes`` and ``coverage`` (share of ``train`` that is
    not 255). An image without classes is background in ``label`` and 255 in ``train``. The content
    does not depend on the number of workers or shards.

    Args:
        scores: shard of kind ``scores``; of kind ``cams`` where no refiner is configured.
        out: shard of kind ``masks`` to write.
        png: folder to write ``label/<id>.png`` and ``train/<id>.png`` to, palette PNGs; an older
            one is replaced.
        supervision: the scores must come from a run of the same.
        max_pixels: largest photo that is read.
        masks: background rule, PAR, CRF, proposals and ignore band.

    Raises:
        ArtifactError: the shard is missing or damaged, or does not fit the manifest, the photos or
            the supervision.
        DataError: there are no mask proposals where they are configured.
        WorkerError: work on an image failed, or a worker process was killed.
    """
    manifest, classes = load(manifest_dir)
    with Shard(scores) as shard:
        if shard.kind not in _ARRAYS:
            raise ArtifactError(
                f"{scores}: holds {shard.kind!r}, expected 'scores', or 'cams' without a refiner"
            )
        samples = samples_of(manifest, shard)
        inputs = {"scores": shard.content, **manifest_digests(manifest_dir)}
        folder = expand_path(masks.proposals.path) if masks.refine == "sam" else None
        if folder is not None:
            check_files(folder, samples)
            inputs["proposals"] = digest_files(proposal_files(folder, shard.ids))
        provenance = STAGES["masks"].provenance(
            {"supervision": supervision, "max_pixels": max_pixels, "masks": masks},
            weights=shard.provenance.weights,
            inputs=inputs,
            sources={scores: shard.provenance},
        )
        write_products(
            out,
            png,
            samples,
            provenance=provenance,
            input_key=functools.partial(_input_key, shard, folder),
            task=functools.partial(_task, shard, len(classes.names), folder),
            work=functools.partial(make_mask, config=masks, max_pixels=max_pixels),
            crf=masks.crf,
            par=masks.par,
            workers=compute.workers,
        )


def _input_key(shard: Shard, folder: Path | None, image: str) -> str:
    """Key of the scores, and the content of the proposals if there are any."""
    if folder is None:
        return shard.key(image)
    file = proposal_path(folder, image)
    return digest_json([shard.key(image), digest_file(file) if file.is_file() else ""])


def _task(shard: Shard, class_count: int, folder: Path | None, sample: Sample) -> MaskTask:
    item = shard.read(sample.id)
    where = f"{shard.path}: {sample.id!r}"
    maps = next((item.arrays[name] for name in _ARRAYS[shard.kind] if name in item.arrays), None)
    classes = item.attrs.get("classes", [])
    if maps is None or maps.ndim != 3 or len(maps) != len(classes):
        shape = None if maps is None else maps.shape
        raise ArtifactError(
            f"{where} has scores of shape {shape} for the classes {classes}; expected "
            "[classes, h, w]; rerun its stage"
        )
    if not all(0 <= index < class_count for index in classes):
        raise ArtifactError(
            f"{where} has the classes {classes}, but the class list ends at {class_count - 1}; "
            "rerun its stage"
        )
    background = item.arrays.get("background")
    for array in (maps, background):
        if array is not None and array.size and not (array.min() >= 0 and array.max() <= 1):
            raise ArtifactError(  # also for NaN
                f"{where} has scores from {array.min()} to {array.max()}, expected 0 … 1; rerun "
                "the refiner"
            )
    scores = maps.astype(np.float16, copy=False)
    if background is not None:
        if background.shape != maps.shape[1:]:
            raise ArtifactError(
                f"{where} has a background of {background.shape}, but scores of {maps.shape}; "
                "rerun its stage"
            )
        background = background.astype(np.float16, copy=False)
    size = (sample.height, sample.width)
    proposals = None if folder is None else proposal_path(folder, sample.id)
    return MaskTask(
        sample.path, sample.digest, *size, tuple(classes), scores, background, proposals
    )
