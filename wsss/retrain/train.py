"""The stage `retrain`: train a segmenter on pseudo masks or, as an upper bound, on the truth."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from wsss.artifacts.checkpoint_header import checkpoint_provenance, is_checkpoint
from wsss.artifacts.digest import digest_file, digest_json
from wsss.artifacts.provenance import Provenance
from wsss.artifacts.shard import Shard
from wsss.artifacts.stage import STAGES
from wsss.artifacts.staleness import refuse_other_supervision
from wsss.artifacts.training import joint_training, state_folder, write_training
from wsss.clip.input import configured_clip
from wsss.compute import distributed
from wsss.compute.device import pick_device
from wsss.compute.numerics import in_force
from wsss.compute.precision import on_device
from wsss.compute.threads import fixed_threads
from wsss.config.base import LearnedFrom, Supervision
from wsss.config.compute import ComputeConfig
from wsss.config.errors import ConfigError
from wsss.config.retrain import PredictConfig, RetrainConfig
from wsss.data.datasets.classes import ClassList
from wsss.data.manifest_folder import load, manifest_digests
from wsss.retrain.architecture import ClipTower
from wsss.retrain.dataset import CORRECTED
from wsss.retrain.loader import loading
from wsss.retrain.losses import accuracy_without_waits
from wsss.retrain.recipe import training_config
from wsss.retrain.runner import SegmenterRunner
from wsss.retrain.segmenter import segmenter_facts
from wsss.retrain.weights.initial import init_path

_log = logging.getLogger(__name__)

MASK_KINDS: Mapping[Supervision, str] = {"tags": "masks", "masks": "truth_masks"}
"""Kind of the shards that are learned from."""


@on_device(fixed_sizes=True)
def train(
    manifest_dir: Path,
    masks: list[Path],
    out: Path,
    log: Path,
    work: Path,
    cache: Path | None = None,
    corrected: Path | None = None,
    *,
    seed: int,
    supervision: Supervision,
    max_pixels: int,
    model: str,
    pretrained: str,
    retrain: RetrainConfig,
    predict: PredictConfig,
    compute: ComputeConfig,
) -> None:
    """Train the segmenter on the `train` masks; continue a run that was interrupted.

    With a launcher such as torchrun (one process per GPU; `wsss launch`) the processes share each
    batch, and only the first one writes.

    Args:
        masks: shards of kind ``masks`` that together hold every training image; with
            ``supervision: masks`` of kind ``truth_masks``.
        out: safetensors checkpoint of the whole network, in mmsegmentation's naming.
        log: CSV, one row per step: step, loss, lr (of the backbone) and the parts of the loss.
        work: folder of resumable checkpoints, the mmengine config and its log; see
            `wsss.artifacts.training.state_folder`.
        cache: folder for downloaded weights of a CLIP; None: open_clip's own.
        corrected: shard of kind ``corrected_masks``, which ``retrain.corrected`` asks for: its
            masks stand in for those of the same images.
        supervision: decides what masks may be learned from.
        max_pixels: see `read_image`.
        model: ``clip.model``; this and the next are read for `clip-vit` alone.
        pretrained: ``clip.pretrained``.
        predict: noted in the checkpoint, for whoever loads it; does not influence the weights.
        compute: device and workers; does not influence the weights.

    Raises:
        ConfigError: corrected masks are passed or configured, but not both.
        ArtifactError: an input is missing, damaged or does not fit the others, or comes from a
            supervised upper bound and the run is none.
        ClipLoadError: the CLIP of `clip-vit` cannot be loaded.
        SharedMemoryError: there is too little room for the batches of several workers.
        LoaderError: a process that loads batches failed.
        ValueError: the configuration cannot be trained, or ``predict.window`` does not suit the
            network.
        FloatingPointError: the loss diverged.
    """
    manifest, classes = load(manifest_dir)
    samples = tuple(manifest.split("train"))
    images = [[sample.id, sample.digest] for sample in samples]
    if bool(corrected) != bool(retrain.corrected):
        raise ConfigError(
            "corrected masks are learned from where retrain.corrected names their folder, and only "
            "there: set it and pass the shard of `wsss truth corrected-masks`, or neither"
        )
    kind: LearnedFrom = "mixed" if corrected else supervision
    contents, digest_of, sources = _read_masks(masks, supervision, MASK_KINDS[supervision])
    others = _read_masks([corrected] if corrected else [], kind, CORRECTED)
    digest_of |= others[1]
    sources |= others[2]
    init = init_path(retrain.init, retrain.model)
    if init and supervision == "tags" and is_checkpoint(init):
        refuse_other_supervision(init, checkpoint_provenance(init), kind)
    clip = configured_clip(model, pretrained, cache) if retrain.uses_clip else None
    tower = ClipTower.of(clip) if clip else None
    provenance = STAGES["retrain"].provenance(
        {
            "seed": seed,
            "supervision": supervision,
            "max_pixels": max_pixels,
            "retrain": retrain,
            "predict": predict,
            "model": model,
            "pretrained": pretrained,
        },
        weights=({"clip": clip.digest} if clip else {})
        | ({"init": digest_file(init)} if init else {}),
        inputs={
            "images": digest_json(images),
            "classes": digest_json(classes.names),
            "masks": digest_json(contents),
            **({"corrected": digest_json(others[0])} if corrected else {}),
            **manifest_digests(manifest_dir),
        },
        sources=sources,
        learned=_counts(len(samples), len(others[1])),
    )
    learned = {
        "images": images,
        "classes": classes.names,
        "masks": [digest_of.get(sample.id) for sample in samples],
    }
    labels, device = label_names(classes), pick_device(compute.device)
    with joint_training(work, device) as first:
        plan = training_config(
            retrain,
            seed=seed,
            max_pixels=max_pixels,
            workers=compute.workers,
            labels=labels,
            manifest_dir=manifest_dir,
            masks=masks,
            kind=MASK_KINDS[supervision],
            corrected=corrected,
            work=state_folder(work, provenance.training_key(learned)),
            init=init,
            clip=tower,
            device=device,
            devices=distributed.world_size(),
            bfloat16=in_force().precision == "bf16",
        )
        # mmengine keeps its logger and its measurements by this name while the process lives
        plan.experiment_name = f"retrain-{uuid.uuid4().hex[:8]}"
        runner = SegmenterRunner.from_cfg(plan)
        if clip and retrain.init == "clip":
            runner.tower = clip.model.get_submodule("visual")
        facts = segmenter_facts(runner.network(), retrain, predict, labels, tower)
        batch = plan.train_dataloader.batch_size
        with (
            fixed_threads(retrain.threads),
            loading(compute.workers, batch, retrain.crop),
            accuracy_without_waits(),
        ):
            runner.train()
        if first:
            state = runner.network().state_dict()
            write_training(out, log, state, runner.curve(), provenance, facts.model_dump())


def label_names(classes: ClassList) -> tuple[str, ...]:
    """Names of the labels, background first."""
    return ("background", *classes.names)


def _counts(images: int, corrected: int) -> dict[str, int]:
    """The images that each kind of masks teaches, where there are several kinds."""
    return {"pseudo masks": images - corrected, "corrected masks": corrected} if corrected else {}


def _read_masks(
    masks: Sequence[Path], supervision: LearnedFrom, kind: str
) -> tuple[list[str], dict[str, str], dict[Path, Provenance]]:
    """Digest of each shard, and of each image's mask by the image; how each shard was made.

    It warns where no mask labels a pixel.
    """
    contents: list[str] = []
    digest_of: dict[str, str] = {}
    sources: dict[Path, Provenance] = {}
    labelled = 0.0
    for path in masks:
        with Shard(path) as shard:
            refuse_other_supervision(path, shard.provenance, supervision)
        with Shard(path, kind=kind) as shard:
            contents.append(shard.content)
            digest_of |= {image: shard.digest(image) for image in shard.ids}
            sources[path] = shard.provenance
            labelled += sum(shard.attrs(image).get("coverage", 1.0) for image in shard.ids)
    if masks and not labelled:
        _log.warning(
            "%s: no pixel of the masks is labelled (all are 255), so the segmenter learns nothing; "
            "lower masks.min_score or masks.min_confidence",
            masks[0].parent,
        )
    return contents, digest_of, sources
