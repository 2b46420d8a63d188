"""Refiners at their published size on an encoder with random weights, and crops of noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from wsss.clip.input import EncoderInput
from wsss.config.model import Config
from wsss.data.datasets.classes import ClassList
from wsss.refine.base import Setup
from wsss.refine.load import load_encoders
from wsss.refine.training.crops import CropBatch

CROP, BATCH, GRID = 320, 4, 20
_TAGS = (1, 2, 1, 2)


def encoder_input(config: Config, folder: Path) -> EncoderInput:
    """The encoder that the configuration names."""
    return EncoderInput(config.clip, folder, device=config.compute.device)


def refiner_setup(
    config: Config, inputs: EncoderInput, classes: ClassList, folder: Path
) -> Setup[Any]:
    """What a refiner is built from."""
    return Setup(
        options=config.refine.options,
        encoder_input=inputs,
        classes=classes,
        template=config.clip.template,
        crop=config.refine.train.crop,
        cams=config.cams,
        infer=config.infer,
        encoders=load_encoders(
            config.refine,
            config.cams,
            {"dino": config.dino},
            folder,
            device=config.compute.device,
        ),
        embeddings=folder,
    )


def crop_batch() -> CropBatch:
    """Smooth noise with 1.5 tags per crop."""
    random = torch.Generator().manual_seed(0)
    image_index = torch.repeat_interleave(torch.arange(BATCH), torch.tensor(_TAGS))
    rows = len(image_index)
    smooth = torch.rand(BATCH, 3, 40, 40, generator=random)
    images = torch.nn.functional.interpolate(smooth, (CROP, CROP), mode="bicubic")
    return CropBatch(
        images=images,
        valid=torch.ones(BATCH, CROP, CROP, dtype=torch.bool),
        labels=None,
        image_index=image_index,
        classes=torch.arange(rows) % 20,
        probabilities=torch.full((rows,), 0.5),
        initial=torch.rand(rows, GRID, GRID, generator=random),
        maps=torch.rand(rows, GRID, GRID, generator=random),
    )
