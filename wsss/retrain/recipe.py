"""The training run as an mmengine config: data, optimiser, schedule, hooks.

Optimisers and schedules are in `wsss.retrain.optimisation`; learning rate, warm-up, steps, batch
and crop come from our configuration. The config is also written to the work folder, from where
mmsegmentation's own tools can load it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from wsss.config.retrain import RetrainConfig
from wsss.labels.ignore import IGNORED
from wsss.retrain import dataset, loader, runner, transforms
from wsss.retrain.architecture import REGISTERED, ClipTower, model_config
from wsss.retrain.loader import loader_settings
from wsss.retrain.mm import MmConfig
from wsss.retrain.optimisation import optimisation

# Importing them registers what the config names; mmsegmentation's tools import them by name.
_REGISTERED = [
    *REGISTERED,
    optimisation.__module__,
    *(module.__name__ for module in (dataset, loader, transforms, runner)),
]
_COLOR: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "photometric": [{"type": "PhotoMetricDistortion"}],
    "hsv": [{"type": "HsvJitter", "reach": 10}],
}


def training_config(
    retrain: RetrainConfig,
    *,
    seed: int,
    max_pixels: int,
    workers: int,
    labels: Sequence[str],
    manifest_dir: Path,
    masks: Sequence[Path],
    kind: str = "masks",
    corrected: Path | None = None,
    work: Path,
    init: Path | None,
    clip: ClipTower | None,
    device: torch.device,
    devices: int,
    bfloat16: bool = False,
) -> MmConfig:
    """Build the mmengine config of a training run.

    Args:
        max_pixels: see `read_image`.
        workers: processes that load data; 1: the training itself does.
        labels: names of the labels, background first.
        masks: mask shards of the train split.
        corrected: shard of corrected masks that stand in for some of them, or None.
        work: folder of resumable checkpoints and logs.
        init: backbone checkpoint to start from, or None.
        clip: the tower of `clip-vit`.
        devices: number of processes that share the global batch.
        bfloat16: multiply in bfloat16.

    Raises:
        ValueError: the batch cannot be shared, or the schedule does not fit the steps.
    """
    batch = share_of_batch(retrain, devices)
    several = devices > 1
    synchronised: Literal["SyncBN", "SharedBN"] = "SyncBN" if device.type == "cuda" else "SharedBN"
    model = model_config(
        retrain.model,
        labels=len(labels),
        crop=retrain.crop,
        norm=synchronised if several else "BN",
        batch_norm=retrain.batch_norm,
        label_smoothing=retrain.label_smoothing,
        clip=clip,
        frozen_clip=retrain.clip_lr == 0,
        clip_stem=retrain.clip_stem,
    )
    model["data_preprocessor"]["type"] = "UploadingPreProcessor"
    return MmConfig(
        {
            "default_scope": "mmseg",
            "custom_imports": {"imports": _REGISTERED},
            "runner_type": "SegmenterRunner",
            "work_dir": str(work.resolve()),
            "device": str(device),
            "init_backbone": str(init.resolve()) if init else None,
            "randomness": {"seed": seed},
            "launcher": "pytorch" if several else "none",
            "env_cfg": {
                "mp_cfg": {"mp_start_method": "fork", "opencv_num_threads": 0},
            },
            "model": model,
            "train_dataloader": {
                "batch_size": batch,
                **loader_settings(workers),
                "sampler": {"type": "StreamSampler"},
                "dataset": {
                    "type": "PseudoMaskDataset",
                    "manifest_dir": str(manifest_dir.resolve()),
                    "masks": [str(path.resolve()) for path in masks],
                    "seed": seed,
                    "max_pixels": max_pixels,
                    "kind": kind,
                    "corrected": str(corrected.resolve()) if corrected else "",
                    "metainfo": {"classes": tuple(labels)},
                    "pipeline": _augmentation(retrain),
                },
            },
            # what mmseg.apis.init_model and inference_model ask for
            "test_pipeline": [{"type": "LoadImageFromFile"}, {"type": "PackSegInputs"}],
            "train_cfg": {
                "type": "IterBasedTrainLoop",
                "max_iters": retrain.iterations,
                "val_interval": retrain.iterations,
            },
            **optimisation(retrain, bfloat16=bfloat16),
            "default_hooks": {
                "timer": {"type": "IterTimerHook"},
                "logger": {"type": "LoggerHook", "interval": 10, "log_metric_by_epoch": False},
                "param_scheduler": {"type": "ParamSchedulerHook"},
                "checkpoint": {
                    "type": "CheckpointHook",
                    "by_epoch": False,
                    "interval": retrain.checkpoint_every,
                    "max_keep_ckpts": 2,
                },
                "sampler_seed": None,
            },
            "custom_hooks": [
                {"type": "StepSeedHook", "seed": seed},
                {"type": "ProgressHook"},
                {"type": "MeasurementsHook"},
            ],
            "log_processor": {"by_epoch": False},
            "visualizer": {"type": "Visualizer", "vis_backends": []},
        }
    )


def share_of_batch(retrain: RetrainConfig, devices: int) -> int:
    """Images per device and step.

    Raises:
        ValueError: the global batch cannot be divided.
    """
    if retrain.batch % devices:
        raise ValueError(
            f"retrain.batch is {retrain.batch}, which {devices} devices cannot share evenly; "
            f"set it to a multiple of {devices}"
        )
    return retrain.batch // devices


def _augmentation(retrain: RetrainConfig) -> list[dict[str, Any]]:
    scale = {
        "ratio_range": tuple(retrain.scale_range),
        "choices": tuple(retrain.scale_choices),
        "short_side": retrain.short_side,
        "interpolation": retrain.scale_filter,
    }
    return [
        {"type": "RandomOwnScale", **scale},
        {
            "type": "RandomCrop",
            "crop_size": (retrain.crop, retrain.crop),
            "cat_max_ratio": retrain.cat_max_ratio,
            "ignore_index": IGNORED,
        },
        {"type": "RandomFlip", "prob": 0.5},
        *_COLOR[retrain.color],
        {"type": "PackSegInputs"},  # a smaller image is padded with 255 by the data preprocessor
    ]
