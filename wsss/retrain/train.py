"""The stage `retrain`: train a segmenter on pseudo masks."""

from __future__ import annotations

import logging
import uuid
from pathlib import Path
from typing import Any

from wsss.artifacts.atomic import write_text
from wsss.artifacts.checksum import sidecar
from wsss.artifacts.digest import digest_file, digest_json
from wsss.artifacts.provenance import Provenance
from wsss.artifacts.shard import Shard
from wsss.artifacts.stage import STAGES
from wsss.artifacts.training import joint_training, write_training
from wsss.compute import distributed
from wsss.compute.device import pick_device
from wsss.config.compute import ComputeConfig
from wsss.config.retrain import RetrainConfig
from wsss.data.datasets.classes import ClassList
from wsss.data.manifest_folder import load, manifest_digests
from wsss.retrain.loader import loading
from wsss.retrain.recipe import training_config
from wsss.retrain.runner import SegmenterRunner, resumable
from wsss.retrain.segmenter import segmenter_facts
from wsss.retrain.weights.initial import init_path

_log = logging.getLogger(__name__)


def train(
    manifest_dir: Path,
    masks: list[Path],
    out: Path,
    log: Path,
    work: Path,
    *,
    seed: int,
    max_pixels: int,
    retrain: RetrainConfig,
    compute: ComputeConfig,
) -> None:
    """Train the segmenter on the `train` masks; continue a run that was interrupted.

    With a launcher such as torchrun (one process per GPU; `wsss launch`) the processes share each
    batch, and only the first one writes.

    Args:
        manifest_dir: folder that ingest wrote.
        masks: shards of kind ``masks`` that together hold every training image.
        out: safetensors checkpoint of the whole network, in mmsegmentation's naming.
        log: CSV, one row per step: step, loss, lr (of the backbone) and the parts of the loss.
        work: folder of resumable checkpoints, the mmengine config and its log; checkpoints of
            another configuration or of other masks are removed.
        seed: the run's seed.
        max_pixels: see `read_image`.
        retrain: network and recipe.
        compute: device and workers; does not influence the weights.

    Raises:
        ArtifactError: an input is missing, damaged or does not fit the others.
        SharedMemoryError: there is too little room for the batches of several workers.
        LoaderError: a process that loads batches failed.
        ValueError: the configuration cannot be trained.
        FloatingPointError: the loss diverged.
    """
    manifest, classes = load(manifest_dir)
    images = [[sample.id, sample.digest] for sample in manifest.split("train")]
    shards = {path: _origin(path) for path in masks}
    init = init_path(retrain.init, retrain.model)
    provenance = STAGES["retrain"].provenance(
        {"seed": seed, "max_pixels": max_pixels, "retrain": retrain},
        weights={"init": digest_file(init)} if init else {},
        inputs={
            "images": digest_json(images),
            "classes": digest_json(classes.names),
            "masks": digest_json([content for content, _ in shards.values()]),
            **manifest_digests(manifest_dir),
        },
        sources={path: provenance for path, (_, provenance) in shards.items()},
    )
    labels, device = label_names(classes), pick_device(compute.device)
    plan = training_config(
        retrain,
        seed=seed,
        max_pixels=max_pixels,
        workers=compute.workers,
        labels=labels,
        manifest_dir=manifest_dir,
        masks=masks,
        work=work,
        init=init,
        device=device,
        devices=distributed.world_size(),
    )
    with joint_training(work, device) as first:
        if first:
            _remove_others(work, provenance.training_key())
        distributed.barrier()  # the others read the folder, too
        # mmengine keeps its logger and its measurements by this name while the process lives
        plan.experiment_name = f"retrain-{uuid.uuid4().hex[:8]}"
        runner = SegmenterRunner.from_cfg(plan)
        with loading(compute.workers, plan.train_dataloader.batch_size, retrain.crop):
            runner.train()
        if first:
            network: Any = runner.network()
            facts = segmenter_facts(network, retrain, labels)
            write_training(
                out, log, network.state_dict(), runner.curve(), provenance, facts.model_dump()
            )


def label_names(classes: ClassList) -> tuple[str, ...]:
    """Names of the labels, background first."""
    return ("background", *classes.names)


def _origin(path: Path) -> tuple[str, Provenance]:
    """Digest of a shard's content, and how it was made."""
    with Shard(path, kind="masks") as shard:
        return shard.content, shard.provenance


def _remove_others(work: Path, training_key: str) -> None:
    """Remove checkpoints of other trainings from the work folder."""
    key_file = work / "training_key"
    checkpoints = resumable(work)
    if checkpoints and not (
        key_file.exists() and key_file.read_text(encoding="utf-8") == training_key
    ):
        _log.info("%s holds the state of another configuration or other masks; starting anew", work)
        for path in checkpoints:
            path.unlink()
            sidecar(path).unlink(missing_ok=True)
    write_text(key_file, training_key)
