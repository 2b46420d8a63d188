"""Published configurations, setups and batches of refiners on golden data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tests.builders import clip_es_config
from wsss.cams.other_features import PatchEncoder
from wsss.clip.input import EncoderInput
from wsss.config.base import overlay
from wsss.config.model import Config
from wsss.data.datasets.classes import ClassList
from wsss.refine.base import Setup
from wsss.refine.training.crops import CropBatch


def published_config(
    golden_dir: Path,
    method: str,
    *,
    cams: Any = None,
    crop: int = 320,
    sections: Mapping[str, Any] | None = None,
    **options: object,
) -> Config:
    """The published variant of a method on the golden CLIP."""
    weights = str(golden_dir / "clip_tiny.safetensors")
    base = {
        "variant": "published",
        "compute": {"device": "cpu"},
        "clip": {"model": "from-weights", "pretrained": weights},
        "cams": cams or {},
        "refine": {"method": method, "train": {"crop": crop}, method: options},
    }
    return clip_es_config(overlay(base, sections or {}), partial=True)


def crop_batch(
    images: torch.Tensor,
    grid: int,
    image_index: torch.Tensor | None = None,
    classes: torch.Tensor | None = None,
    labels: torch.Tensor | None = None,
) -> CropBatch:
    """Whole images with their classes, without CAMs."""
    none = torch.zeros(0, dtype=torch.long)
    rows = 0 if classes is None else len(classes)
    return CropBatch(
        images=images,
        valid=torch.ones(len(images), *images.shape[2:], dtype=torch.bool),
        labels=labels,
        image_index=none if image_index is None else image_index,
        classes=none if classes is None else classes,
        probabilities=torch.full((rows,), float("nan")),
        initial=torch.zeros(rows, grid, grid),
        maps=torch.zeros(rows, grid, grid),
    )


def refiner_setup(
    config: Config,
    inputs: EncoderInput,
    labels: int,
    encoders: Mapping[str, PatchEncoder] | None = None,
) -> Setup[Any]:
    """What a refiner for so many labels is built from."""
    names = tuple(f"class {index}" for index in range(1, labels))
    return Setup(
        options=config.refine.options,
        encoder_input=inputs,
        classes=ClassList("golden", names, names, ()),
        template=config.clip.template,
        crop=config.refine.train.crop,
        cams=config.cams,
        infer=config.infer,
        encoders=encoders or {},
    )
