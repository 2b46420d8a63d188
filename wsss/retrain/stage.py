"""The stage `retrain`: train a segmenter on pseudo masks, then predict a split with it."""

from __future__ import annotations

import csv
import io
import logging
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config as MmConfig
from torch import Tensor

from wsss.artifacts.atomic import write_text
from wsss.artifacts.checkpoint import load_checkpoint, save_checkpoint
from wsss.artifacts.digest import digest_file, digest_json
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.progress import track
from wsss.artifacts.provenance import Provenance, provenance
from wsss.artifacts.shard import Item, Shard, ShardWriter
from wsss.config import Config
from wsss.data.classes import ClassList
from wsss.data.dataset import load
from wsss.data.image import read_image
from wsss.data.manifest import Sample
from wsss.retrain.architecture import build_model, model_config
from wsss.retrain.inference import Segmenter
from wsss.retrain.recipe import training_config
from wsss.retrain.runner import SegmenterRunner, resumable
from wsss.retrain.weights import init_path

_log = logging.getLogger(__name__)
_ENTRY = ("wsss.retrain.stage",)


def train(
    config: Config, manifest_dir: Path, masks: list[Path], out: Path, log: Path, work: Path
) -> None:
    """Train the segmenter on the `train` masks; continue a run that was interrupted.

    With a launcher such as torchrun (one process a GPU) the processes share the global batch.

    Args:
        config: the sections ``retrain``, ``seed`` and, without influence on the weights, ``compute``.
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
    init = init_path(config.retrain.init)
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
    device = _device(config)
    devices = int(os.environ.get("WORLD_SIZE", "1"))
    if devices > 1 and device.type != "cuda":
        raise ValueError(
            f"{devices} processes were launched, but compute.device gives {device}: training in "
            "several processes needs a CUDA device each; launch one process"
        )
    plan = training_config(
        config,
        labels=label_names(classes),
        manifest_dir=manifest_dir,
        masks=masks,
        work=work,
        init=init,
        device=device,
        devices=devices,
    )
    main = int(os.environ.get("RANK", "0")) == 0
    if main:
        _claim(work, digest_json([made_of.key(), made_of.inputs]))
        plan.dump(work / "config.py")
    # mmengine keeps its log and its measurements by this name, for as long as the process lives
    plan.experiment_name = f"retrain-{uuid.uuid4().hex[:8]}"
    runner = SegmenterRunner.from_cfg(plan)
    runner.train()
    if main:
        write_text(log, _csv(runner.curve()))
        save_checkpoint(out, runner.network().state_dict(), made_of)
    if devices > 1:
        torch.distributed.barrier()


def predict(
    config: Config,
    manifest_dir: Path,
    split: str,
    shard: tuple[int, int],
    checkpoint: Path,
    out: Path,
) -> None:
    """Predict one part of a split: a shard of kind ``predictions``.

    Arrays are uint8 label maps at image size: ``single`` and ``multi`` (mean of the probabilities
    over ``score.scales`` and mirroring).

    Args:
        config: the sections ``retrain``, ``score`` and ``masks.crf``.
        manifest_dir: folder that ingest wrote.
        split: ``train`` or ``val``.
        shard: part and number of parts, 1-based.
        checkpoint: what `train` wrote.
        out: the shard.

    Raises:
        ArtifactError: the checkpoint is of another architecture or class list.
    """
    manifest, classes = load(manifest_dir)
    samples = tuple(manifest.split(split).shard(*shard))
    device = _device(config)
    segmenter = load_segmenter(config, classes, checkpoint, device)
    made_of = provenance(
        "predict",
        entry=_ENTRY,
        sections={"retrain": config.retrain, "score": config.score, "crf": config.masks.crf},
        seed=config.seed,
        weights={"segmenter": digest_file(checkpoint)},
    )
    key = made_of.key()
    # Rounding differs with the batch size: on the CPU, where batches gain little, images go one by
    # one, so that the content does not depend on how the work was cut.
    batch = 1 if device.type == "cpu" else config.compute.batch
    ids = [sample.id for sample in samples]
    with ShardWriter(out, kind="predictions", ids=ids, provenance=made_of) as writer:
        progress = track(samples, total=len(samples), description=f"predict {split}")
        for group in _equal_sizes(samples, batch):
            photos = [read_image(s.path, max_pixels=config.data.max_pixels) for s in group]
            single = segmenter.probabilities(np.stack(photos))
            multi = segmenter.probabilities(
                np.stack(photos), scales=tuple(config.score.scales), flip=True
            )
            for number, sample in enumerate(group):
                next(progress)
                arrays = {"single": _labels(single[number]), "multi": _labels(multi[number])}
                item_key = digest_json([key, sample.digest, list(sample.tags)])
                size = [sample.height, sample.width]
                writer.add(Item(sample.id, arrays, {"size": size}, item_key))
        next(progress, None)


def load_segmenter(
    config: Config, classes: ClassList, checkpoint: Path, device: torch.device
) -> Segmenter:
    """Build the configured network with the weights of a checkpoint.

    Raises:
        ArtifactError: the checkpoint is of another architecture or class list.
    """
    tensors, made_of = load_checkpoint(checkpoint)
    _check_origin(checkpoint, made_of, config, classes)
    model = build_model(
        model_config(config.retrain.model, labels=classes.label_count, crop=config.retrain.crop)
    )
    model.load_state_dict(tensors)
    return Segmenter(model, device)


def label_names(classes: ClassList) -> tuple[str, ...]:
    """Names of the labels, background first."""
    return ("background", *classes.names)


def _check_origin(path: Path, made_of: Provenance, config: Config, classes: ClassList) -> None:
    found = made_of.config.get("retrain", {}).get("model")
    if found != config.retrain.model:
        raise ArtifactError(
            f"{path}: holds {found!r}, but retrain.model is {config.retrain.model!r}; "
            "train again or correct the configuration"
        )
    if made_of.inputs.get("classes") != digest_json(classes.names):
        raise ArtifactError(
            f"{path}: was trained for another class list than that of this manifest "
            f"({classes.name}: {len(classes.names)} classes); train again"
        )


def _equal_sizes(samples: Sequence[Sample], batch: int) -> Iterator[list[Sample]]:
    """Groups of at most ``batch`` images of one size."""
    by_size: dict[tuple[int, int], list[Sample]] = {}
    for sample in samples:
        by_size.setdefault((sample.height, sample.width), []).append(sample)
    for group in by_size.values():
        yield from (group[start : start + batch] for start in range(0, len(group), batch))


def _labels(probabilities: Tensor) -> np.ndarray:
    return probabilities.argmax(dim=0).to(torch.uint8).cpu().numpy()


def _content(path: Path) -> str:
    with Shard(path, kind="masks") as shard:
        return shard.content


def _device(config: Config) -> torch.device:
    wanted = config.compute.device
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def _claim(work: Path, task: str) -> None:
    """Make ``work`` this task's folder; checkpoints of another task are removed."""
    work.mkdir(parents=True, exist_ok=True)
    owner = work / "task"
    stale = resumable(work)
    if stale and (not owner.exists() or owner.read_text(encoding="utf-8") != task):
        _log.info("%s holds the state of another configuration or other masks; starting anew", work)
        for path in stale:
            path.unlink()
    write_text(owner, task)


def _csv(curve: Mapping[str, Sequence[float]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["step", *curve])
    for step, row in enumerate(zip(*curve.values(), strict=True), start=1):
        writer.writerow([step, *(f"{value:.6g}" for value in row)])
    return buffer.getvalue()
