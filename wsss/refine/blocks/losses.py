"""Losses that the trained refiners share (eq. 17-19 of docs/methods/weclip.md).

Labels are 0 for background, class + 1, and 255 where there is none.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer, UInt8
from torch import Tensor

from wsss.compute import distributed
from wsss.labels.ignore import IGNORED


def balanced_cross_entropy(
    logits: Float[Tensor, "batch labels rows columns"],
    labels: Integer[Tensor, "batch height width"],
) -> Float[Tensor, ""]:
    """Half the mean over background pixels of the batch and half that over foreground pixels.

    If a batch has none of the two, that half is 0: the loss stays finite, and is 0 where everything
    is ignored.

    Args:
        logits: at any size; brought to that of the labels (bilinear).
        labels: see the module.
    """
    size = (labels.shape[-2], labels.shape[-1])
    if logits.shape[-2:] != size:
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
    labels = labels.long()
    loss = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")
    background = labels == 0
    foreground = (labels != IGNORED) > background
    where = torch.stack([background, foreground]).flatten(1)
    return 0.5 * batch_mean((loss.flatten() * where).sum(1), where.sum(1)).sum()


def batch_mean(
    total: Float[Tensor, "*terms"], count: Integer[Tensor, "*terms"], *, more: int = 0
) -> Float[Tensor, "*terms"]:
    """A sum over a batch divided by the number of its terms; 0 without any.

    If several processes share the batch, the counts of all are added. The mean of the results, and
    of their gradients, over the processes is then that of the batch.

    Args:
        total, count: of this process; several sums share one message.
        more: added to the count of the batch.
    """
    terms = distributed.all_sum(count)
    terms = terms + more if more else terms.clamp_min(1)
    if (processes := distributed.world_size()) > 1:
        total = processes * total
    return total / terms


def window(
    grid: tuple[int, int], radius: int, device: torch.device | None = None
) -> Bool[Tensor, "cells cells"]:
    """Which pairs of cells of a grid lie at most ``radius`` rows and columns apart."""
    rows, columns = (torch.arange(side, device=device) for side in grid)
    near_rows = (rows[:, None] - rows).abs() <= radius
    near_columns = (columns[:, None] - columns).abs() <= radius
    # (h, 1, h, 1) & (1, w, 1, w) -> (h w, h w)
    pairs = near_rows[:, None, :, None] & near_columns[None, :, None, :]
    return pairs.reshape(grid[0] * grid[1], grid[0] * grid[1])


def affinity_labels(
    labels: Integer[Tensor, "batch height width"],
    grid: tuple[int, int],
    near: Bool[Tensor, "cells cells"],
) -> UInt8[Tensor, "batch cells cells"]:
    """1 where two cells of a grid have the same label, 0 where not, 255 where unknown or far apart.

    Args:
        labels: see the module; the first pixel of each cell speaks for it (nearest).
        grid: rows and columns of the affinity.
        near: pairs that count, from `window`.
    """
    whole = labels if labels.dtype == torch.uint8 else labels.float()  # as torch resizes
    reduced = F.interpolate(whole[:, None], grid, mode="nearest")
    cells = reduced.flatten(1)  # (B, 1, h, w) -> (B, h w)
    labelled = cells != IGNORED
    pairs = (cells[:, :, None] == cells[:, None, :]).to(torch.uint8)
    return torch.where(near & labelled[:, :, None] & labelled[:, None, :], pairs, IGNORED)


def affinity_loss(
    affinity: Float[Tensor, "batch cells cells"], pairs: UInt8[Tensor, "batch cells cells"]
) -> Float[Tensor, ""]:
    """Half the mean of 1 - A over equal pairs and half that of A over unequal ones (no logarithm).

    Args:
        affinity: in 0..1.
        pairs: from `affinity_labels`. Counts over the batch are increased by one, as published.
    """
    where = torch.stack([pairs == 1, pairs == 0]).flatten(1)
    distances = torch.stack([1 - affinity, affinity]).flatten(1)
    return 0.5 * batch_mean((distances * where).sum(1), where.sum(1), more=1).sum()
