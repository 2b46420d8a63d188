"""Class maps: packed rows, scaling to [0, 1], resizing, averaging to a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float16, Int
from torch import Tensor

from wsss.data.manifest import Sample

Scaling = Literal["exact", "guarded_once", "guarded_twice", "guarded_more"]
_GUARDED = {"guarded_once": 1, "guarded_twice": 2, "guarded_more": 1}
_GUARD, _LARGER_GUARD = 1e-7, 1e-5


@dataclass(frozen=True)
class CamMaps:
    """The maps of one image, one row per tag, in the order of ``sample.tags``."""

    sample: Sample
    cam: Float16[np.ndarray, "classes h w"]
    """In 0 … 1, on the source's grid."""
    cam_affinity: Float16[np.ndarray, "classes rows columns"] | None
    """After the affinity, in 0 … 1, on the encoder's patch grid; None where it is off."""
    probabilities: tuple[float, ...] | None = None
    """Of each class on the image; None where the source does not know them."""


@dataclass(frozen=True)
class BatchCams:
    """CAMs of a batch, packed: rows of the first image, then of the second …"""

    image_index: Int[Tensor, " rows"]
    """The image of each row; on the CPU."""
    maps: Float[Tensor, "rows height width"]
    """In 0 … 1."""
    probabilities: Float[Tensor, " rows"]
    """Of the class on the image, among the image's classes and the backgrounds."""
    attention: Float[Tensor, "batch tokens tokens"] | None
    """What the maps are propagated along: the mean attention, class token included, or another
    affinity, between patches alone (`wsss.cams.patch_affinity`); None without."""


def scale_maps(
    maps: Float[Tensor, "rows height width"], scaling: Scaling = "exact"
) -> Float[Tensor, "rows height width"]:
    """Shift and scale every map to [0, 1] by its own minimum and maximum.

    Args:
        maps: any values.
        scaling: ``exact`` divides by the range, so the maximum is 1, and makes a constant map 0.
            ``guarded_twice`` is the published form: divide by the range plus 1e-7, and do all of it
            twice. It is not redundant there, because raw maxima are about 1e-4: the second round
            removes most of what the guard did, and leaves a maximum of 0.9999999 (eq. 13 of
            docs/methods/clip-es.md). ``guarded_once`` does it once, as the published code does
            after the affinity: a map whose range is near 1e-7 stays below 1. ``guarded_more`` adds
            1e-5 instead, as ExCEL's release does where it joins a map and that of the mirror image.

    Returns:
        New maps.
    """
    if scaling in _GUARDED:
        guard = _LARGER_GUARD if scaling == "guarded_more" else _GUARD
        for _ in range(_GUARDED[scaling]):
            maps = maps - _extreme(maps, largest=False)
            maps = maps / (guard + _extreme(maps, largest=True))
        return maps
    shifted = maps - _extreme(maps, largest=False)
    span = _extreme(shifted, largest=True)
    return shifted / span.clamp_min(torch.finfo(span.dtype).tiny)  # a constant map is 0 / tiny


def resize_maps(
    maps: Float[Tensor, "rows height width"], size: tuple[int, int]
) -> Float[Tensor, "rows new_height new_width"]:
    """Bilinear resizing from grid to image (or another grid), cell centres aligned.

    Equals OpenCV's bilinear resizing, which the published code uses, up to float rounding.

    Args:
        maps: at least float32 on a CPU.
        size: new height and width.
    """
    resized = F.interpolate(maps.unsqueeze(0), size=size, mode="bilinear", align_corners=False)
    return resized.squeeze(0)


def pack_classes(
    classes: Sequence[Sequence[int]],
) -> tuple[Int[Tensor, " rows"], Int[Tensor, " rows"]]:
    """Image and class of each packed row: rows of the first image, then of the second …

    They lie on the CPU, which sizes and places follow from without a wait for a GPU.

    Args:
        classes: of each image.
    """
    pairs = [(image, index) for image, row in enumerate(classes) for index in row]
    packed = torch.tensor(pairs, dtype=torch.long).view(-1, 2)
    return packed[:, 0], packed[:, 1]


def average_to_grid(
    maps: Float[Tensor, "rows height width"], grid: tuple[int, int]
) -> Float[Tensor, "rows grid_height grid_width"]:
    """Area average: each cell is the mean of the pixels that it covers, weighted by coverage.

    Cells divide the image evenly, as `resize_maps` assumes on the way back.
    """
    rows = _coverage(maps.shape[-2], grid[0]).to(maps)
    columns = _coverage(maps.shape[-1], grid[1]).to(maps)
    return rows @ maps @ columns.T  # (h, H) x (K, H, W) x (W, w)


def _coverage(pixels: int, cells: int) -> Float[Tensor, "cells pixels"]:
    """Share of every cell that each pixel fills; rows sum to one."""
    edges = torch.linspace(0, pixels, cells + 1, dtype=torch.float64)
    start = torch.arange(pixels, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], start + 1) - torch.maximum(edges[:-1, None], start)
    return (overlap.clamp_min(0) / overlap.clamp_min(0).sum(1, keepdim=True)).float()


def _extreme(maps: Tensor, *, largest: bool) -> Tensor:
    flat = maps.flatten(1)
    return (flat.amax(1) if largest else flat.amin(1))[:, None, None]
