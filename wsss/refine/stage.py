"""The refine stage: train the configured refiner, apply it to one shard of CAMs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from wsss.artifacts.atomic import write_text
from wsss.artifacts.checkpoint_header import checkpoint_weights
from wsss.artifacts.checksum import json_with_checksum
from wsss.artifacts.digest import digest_json
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.item_cache import ItemCache
from wsss.artifacts.progress import track
from wsss.artifacts.provenance import provenance
from wsss.artifacts.shard import Item, ShardWriter
from wsss.compute.device import pick_device
from wsss.config.model import Config
from wsss.data.manifest_folder import load
from wsss.labels.prediction import write_predictions
from wsss.refine.base import Scores, find_refiner
from wsss.refine.inputs import CamSet, ImageCams
from wsss.refine.registry import method_module
from wsss.refine.seed_set import SeedSet
from wsss.refine.shard_set import ShardSet

_log = logging.getLogger(__name__)
_ENTRY = "wsss.refine.stage"


def train(
    config: Config,
    manifest_dir: Path,
    cams: list[Path],
    out: Path,
    log: Path,
    work: Path,
    cache: Path,
    seeds: list[Path] | None = None,
    efficiency: Path | None = None,
) -> None:
    """Train the refiner on the CAMs of the train split and write its checkpoint.

    With a launcher such as torchrun (one process a GPU; `wsss launch`) the processes share each
    batch, and the first alone writes.

    Args:
        config: seed, data, clip, cams, refine and compute.
        manifest_dir: what ingest wrote.
        cams: CAM shards that together hold every training image.
        out: checkpoint to write (safetensors); without a tensor for the refiner ``none``.
        log: CSV to write, a row a step: ``step``, ``loss``, ``lr`` and the parts of the loss; no
            row for the refiner ``none``.
        work: folder for what an interrupted training resumes from.
        cache: folder for downloads and text embeddings.
        seeds: seed shards of every training image, for a refiner that learns from seeds.
        efficiency: JSON to write what the training cost to; ``null`` for the refiner ``none``.

    Raises:
        ArtifactError: a shard is missing or damaged, or a training image has no CAM or no seed.
        ValueError: ``refine.checkpoint`` names what is to be imported instead.
    """
    if config.refine.checkpoint is not None:
        raise ValueError(
            f"refine.checkpoint is {config.refine.checkpoint!r}, so nothing is trained; run "
            "refine-import, or set it to null"
        )
    # imports torch, which `apply` avoids
    from wsss.artifacts.training import joint_training, write_training

    manifest, classes = load(manifest_dir)
    with ExitStack() as stack:
        first = stack.enter_context(joint_training(work, pick_device(config.compute.device)))
        images = stack.enter_context(CamSet(cams, manifest.split("train")))
        sets: dict[str, ShardSet] = {"CAM": images}
        hard = None
        if config.refine.needs_seeds:
            hard = stack.enter_context(SeedSet(seeds or [], manifest.split("train")))
            sets["seed"] = hard
        for what, one in sets.items():
            if missing := one.missing():
                raise ArtifactError(
                    f"{len(missing)} training images have no {what}, e.g. {missing[0]!r}; pass all "
                    f"{what} shards of the train split"
                )
        sections = {n: getattr(config, n) for n in ("data", "clip", "cams", "refine")}
        made = provenance(
            "refine_train",
            entry=(_ENTRY, method_module(config.refine.method)),
            sections=sections,
            seed=config.seed,
            weights=images.weights,
            inputs={n: digest for one in sets.values() for n, digest in one.inputs.items()},
        )
        refiner = find_refiner(config.refine.method)
        learned = refiner.train(config, classes, images, work, cache, hard)
        if first:
            if efficiency is not None:
                known = learned.efficiency
                cost = None if known is None else json_with_checksum(known.model_dump(mode="json"))
                write_text(efficiency, json.dumps(cost) + "\n")
            write_training(out, log, learned.tensors, learned.curve, made)


def apply(
    config: Config,
    manifest_dir: Path,
    split: str,
    cams: Path,
    checkpoint: Path,
    out: Path,
    cache: Path,
) -> None:
    """Write the class scores that the refiner makes of one shard of CAMs.

    Items have the array ``score`` float16 [K, h, w], where the refiner has one of its own the array
    ``background`` float16 [h, w], and the attributes ``classes``, ``grid``, ``size`` and ``split``.

    Args:
        config: data, clip, cams, refine, infer and compute.
        manifest_dir: what ingest wrote.
        split: to which the shard belongs.
        cams: the CAM shard.
        checkpoint: what `train` wrote.
        out: shard of kind ``scores`` to write.
        cache: see `train`.

    Raises:
        ArtifactError: the shard or the checkpoint is missing, damaged, or of another split or
            refiner.
    """
    manifest, classes = load(manifest_dir)
    refiner = find_refiner(config.refine.method)
    with CamSet([cams], manifest.split(split)) as images:
        made = provenance(
            "refine_apply",
            entry=(_ENTRY, method_module(config.refine.method)),
            sections={name: getattr(config, name) for name in refiner.sections},
            seed=0,  # nothing is random here
            weights=images.weights | checkpoint_weights(checkpoint, config.refine.method),
            inputs=images.inputs,
        )
        kept = ItemCache(out, kind="scores")
        keys = {}
        for image in images.ids:
            sample = images.sample(image)
            keys[image] = digest_json(
                [made.key(), sample.digest, list(sample.tags), images.key(image)]
            )
        with ShardWriter(out, kind="scores", ids=images.ids, provenance=made) as writer:
            todo = []
            for image in images.ids:
                if old := kept.find(image, keys[image]):
                    writer.add(old)
                else:
                    todo.append(image)
            read: list[ImageCams] = []
            scores = refiner.apply(config, classes, checkpoint, _reading(images, todo, read), cache)
            for image, score in zip(
                todo, track(scores, total=len(todo), description="Refined scores"), strict=True
            ):
                writer.add(_item(read.pop(0), score, keys[image], split))
        kept.store()
    _log.info("%d images: %d reused, %d computed", len(keys), len(keys) - len(todo), len(todo))


def predict(
    config: Config,
    manifest_dir: Path,
    split: str,
    shard: tuple[int, int],
    checkpoint: Path,
    out: Path,
    cache: Path,
) -> None:
    """Let the refiner predict the labels of one part of a split by itself, without tags.

    Items have the arrays of `wsss.retrain.predict.run`: ``single``, ``multi`` (all
    ``infer.scales`` and mirroring) and, with ``infer.crf``, both after a dense CRF with the
    settings of ``masks.crf``.

    Args:
        config: data, clip, cams, refine, infer, masks and compute.
        manifest_dir: what ingest wrote.
        split: ``train`` or ``val``.
        shard: part and number of parts, 1-based.
        checkpoint: what `train` wrote.
        out: shard of kind ``predictions`` to write.
        cache: see `train`.

    Raises:
        ArtifactError: the checkpoint is missing, damaged, or of another refiner.
        ValueError: the refiner cannot predict.
    """
    manifest, classes = load(manifest_dir)
    samples = tuple(manifest.split(split).shard(*shard))
    method = config.refine.method
    refiner = find_refiner(method)
    made = provenance(
        "refine_predict",
        entry=(_ENTRY, method_module(config.refine.method)),
        sections={name: getattr(config, name) for name in refiner.sections}
        | {"crf": config.masks.crf},
        seed=0,  # nothing is random here
        weights=checkpoint_weights(checkpoint, method),
    )
    found = refiner.predict(config, classes, checkpoint, samples, cache)
    write_predictions(
        out,
        samples,
        ((sample.id, one) for sample, one in zip(samples, found, strict=True)),
        made,
        crf=config.masks.crf if config.infer.crf else None,
        workers=config.compute.workers,
        description=f"{method} on {split}",
    )


def _reading(images: CamSet, ids: list[str], read: list[ImageCams]) -> Iterator[ImageCams]:
    """Read the CAMs one by one; ``read`` keeps those whose scores have not come yet."""
    for image in ids:
        read.append(images.read(image))
        yield read[-1]


def _item(image: ImageCams, found: Scores, key: str, split: str) -> Item:
    name, score = image.sample.id, found.classes
    classes = image.classes if found.ids is None else found.ids
    if score.ndim != 3 or len(score) != len(classes):
        raise ArtifactError(
            f"{name!r}: the refiner gave scores of shape {score.shape} for the classes "
            f"{list(classes)}; expected one map each"
        )
    arrays = {"score": score}
    if found.background is not None:
        arrays["background"] = found.background
    for array in arrays.values():
        if array.size and not (array.min() >= 0 and array.max() <= 1):  # false for NaN, too
            raise ArtifactError(
                f"{name!r}: the refiner gave scores from {array.min()} to {array.max()}; expected "
                "0 … 1"
            )
    attrs = {
        "classes": list(classes),
        "grid": list(score.shape[1:]),
        "size": [image.sample.height, image.sample.width],
        "split": split,
    }
    stored = {kind: array.astype(np.float16, copy=False) for kind, array in arrays.items()}
    return Item(name, stored, attrs, key)
