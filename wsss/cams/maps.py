"""Arithmetic on class maps: scaling to [0, 1], resizing, averaging to a grid."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

Scaling = Literal["exact", "guarded_twice"]


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
            docs/methods/clip-es.md).

    Returns:
        New maps.
    """
    if scaling == "guarded_twice":
        for _ in range(2):
            maps = maps - _extreme(maps, largest=False)
            maps = maps / (1e-7 + _extreme(maps, largest=True))
        return maps
    shifted = maps - _extreme(maps, largest=False)
    span = _extreme(shifted, largest=True)
    return torch.where(span > 0, shifted / span.clamp_min(torch.finfo(span.dtype).tiny), 0.0)


def resize_maps(
    maps: Float[Tensor, "rows height width"], size: tuple[int, int]
) -> Float[Tensor, "rows new_height new_width"]:
    """Bilinear resizing from grid to image (or another grid), cell centres aligned.

    Equals OpenCV's bilinear resizing, which the published code uses, up to float rounding.

    Args:
        maps: one map a row, at least float32 on a CPU.
        size: height and width wanted.
    """
    resized = F.interpolate(maps.unsqueeze(0), size=size, mode="bilinear", align_corners=False)
    return resized.squeeze(0)


def places_in_image(owner: Int[Tensor, " rows"], batch: int) -> Int[Tensor, " rows"]:
    """Position of each packed row among the rows of its image, to spread rows over padded ones.

    Args:
        owner: the image of each row, in ascending order.
        batch: number of images.
    """
    counts = torch.bincount(owner, minlength=batch)
    return torch.arange(len(owner), device=owner.device) - (counts.cumsum(0) - counts)[owner]


def average_to_grid(
    maps: Float[Tensor, "rows height width"], grid: tuple[int, int]
) -> Float[Tensor, "rows grid_height grid_width"]:
    """Area average: each cell is the mean of what it covers, pixels on its border in part.

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
