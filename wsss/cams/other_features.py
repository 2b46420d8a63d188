"""Patch features of a frozen encoder besides CLIP, for an affinity that compares them.

Its code is imported only where the configuration reads it, so that a change of it reruns nothing
else.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wsss.clip.images import Channels
from wsss.clip.input import EncoderInput
from wsss.compute.packed_rows import to_device
from wsss.config.clip import DinoConfig, encoder_module


@runtime_checkable
class PatchEncoder(Protocol):
    """A frozen encoder besides CLIP, such as `wsss.dino.encoder.DinoEncoder`."""

    device: torch.device
    digest: str
    """sha256 over its weights and sizes."""
    parameter_count: int

    def renormalized(self, images: Tensor, mean: Channels, std: Channels) -> Tensor:
        """Images as it takes them, from those with another normalisation."""

    def encode(self, images: Tensor) -> Any:
        """``tokens`` [batch, patches, channels], and their ``grid``: rows and columns."""


@dataclass(frozen=True)
class OtherFeatures:
    """Patch features of an encoder besides CLIP, on the grid of CLIP's patches."""

    encoder: PatchEncoder
    normalization: tuple[Channels, Channels]
    """Mean and standard deviation of the images that enter CLIP."""

    def __call__(
        self, images: Float[Tensor, "batch 3 height width"], grid: tuple[int, int]
    ) -> Float[Tensor, "batch patches channels"]:
        """The features of images as CLIP takes them."""
        images = to_device(images, self.encoder.device)
        features = self.encoder.encode(self.encoder.renormalized(images, *self.normalization))
        return on_grid(features.tokens, features.grid, grid)


def load_dino(
    config: DinoConfig, normalization: tuple[Channels, Channels], cache: Path, device: str
) -> OtherFeatures:
    """The encoder of section ``dino``, whose code is imported only where it is read.

    Args:
        normalization: see `OtherFeatures`.

    Raises:
        ValueError: it cannot be built, or its weights do not fit or cannot be had.
    """
    module = importlib.import_module(encoder_module("dino"))
    return OtherFeatures(module.configured(config, cache, device=device), normalization)


def weights_of(inputs: EncoderInput, other: OtherFeatures | None) -> dict[str, str]:
    """sha256 of the weights of CLIP and the other encoder, by name."""
    others = {} if other is None else {"dino": other.encoder.digest}
    return {"clip": inputs.clip.digest} | others


@torch.no_grad()
def on_grid(
    tokens: Float[Tensor, "batch tokens channels"], own: tuple[int, int], grid: tuple[int, int]
) -> Float[Tensor, "batch patches channels"]:
    """Patch features resized from their own grid to another one, bilinearly."""
    planes = tokens.transpose(1, 2).unflatten(2, own)  # (B, n, D) -> (B, D, h, w)
    resized = F.interpolate(planes, grid, mode="bilinear", align_corners=False)
    return resized.flatten(2).transpose(1, 2)  # (B, D, h', w') -> (B, N, D)
