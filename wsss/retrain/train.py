"""The stage `retrain`: train a segmenter on pseudo masks."""

from __future__ import annotations

import logging
import uuid
from contextlib import nullcontext
from pathlib import Path

from wsss.artifacts.atomic import write_text
from wsss.artifacts.checkpoint import save_checkpoint
from wsss.artifacts.checksum import sidecar
from wsss.artifacts.curve import curve_csv
from wsss.artifacts.digest import digest_file, digest_json
from wsss.artifacts.exclusive_lock import exclusive_lock
from wsss.artifacts.provenance import provenance
from wsss.artifacts.shard import Shard
from wsss.compute import distributed
from wsss.compute.device import pick_device
from wsss.config.model import Config
from wsss.data.datasets.classes import ClassList
from wsss.data.manifest_folder import load
from wsss.retrain.recipe import training_config
from wsss.retrain.runner import SegmenterRunner, resumable
from wsss.retrain.weights.initial import init_path

_log = logging.getLogger(__name__)
_ENTRY = ("wsss.retrain.train",)


def train(
    config: Config, manifest_dir: Path, masks: list[Path], out: Path, log: Path, work: Path
) -> None:
    """Train the segmenter on the `train` masks; continue a run that was interrupted.

    With a launcher such as torchrun (one process a GPU; `wsss launch`) the processes share each
    batch, and the first alone writes.

    Args:
        config: ``retrain``, ``seed`` and, without influence on the weights, ``compute``.
        manifest_dir: folder that ingest wrote.
        masks: shards of kind ``masks`` that together hold every training image.
        out: safetensors checkpoint of the whole network, in mmsegmentation's naming.
        log: CSV, a row a step: step, loss, lr (of the backbone) and the parts of the loss.
        work: folder of resumable checkpoints, the mmengine config and its log; what it holds of
            another configuration or of other masks is ignored.

    Raises:
        ArtifactError: an input is missing, damaged or does not fit the others.
        ValueError: the configuration cannot be trained.
        FloatingPointError: the loss diverged.
    """
    manifest, classes = load(manifest_dir)
    init = init_path(config.retrain.init, config.retrain.model)
    train_samples = tuple(manifest.split("train"))
    made_of = provenance(
        "retrain",
        entry=_ENTRY,
        sections={"retrain": config.retrain},
        seed=config.seed,
        weights={"init": digest_file(init)} if init else {},
        inputs={
            "images": digest_json([[sample.id, sample.digest] for sample in train_samples]),
            "classes": digest_json(classes.names),
            "masks": digest_json([_content(path) for path in masks]),
        },
    )
    device = pick_device(config.compute.device)
    plan = training_config(
        config,
        labels=label_names(classes),
        manifest_dir=manifest_dir,
        masks=masks,
        work=work,
        init=init,
        device=device,
        devices=distributed.count(),
    )
    distributed.join(device)
    main = distributed.rank() == 0
    with exclusive_lock(work) if main else nullcontext():
        if main:
            _claim(work, digest_json([made_of.key(), made_of.inputs]))
        distributed.wait()  # the others look at the folder, too
        # mmengine keeps its logger and its measurements by this name while the process lives
        plan.experiment_name = f"retrain-{uuid.uuid4().hex[:8]}"
        runner = SegmenterRunner.from_cfg(plan)
        runner.train()
    if main:
        write_text(log, curve_csv(runner.curve()))
        save_checkpoint(out, runner.network().state_dict(), made_of)
    distributed.leave()


def label_names(classes: ClassList) -> tuple[str, ...]:
    """Names of the labels, background first."""
    return ("background", *classes.names)


def _content(path: Path) -> str:
    with Shard(path, kind="masks") as shard:
        return shard.content


def _claim(work: Path, task: str) -> None:
    """Make ``work`` this task's folder; checkpoints of another task are removed."""
    owner = work / "task"
    stale = resumable(work)
    if stale and (not owner.exists() or owner.read_text(encoding="utf-8") != task):
        _log.info("%s holds the state of another configuration or other masks; starting anew", work)
        for path in stale:
            path.unlink()
            sidecar(path).unlink(missing_ok=True)
    write_text(owner, task)
