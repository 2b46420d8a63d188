"""Losses that WeCLIP+ adds (eq. 14 and 15 of docs/methods/weclip-plus.md).

Labels are 0 for background, class + 1, and 255 where there is none.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from wsss.compute import distributed
from wsss.labels.ignore import IGNORED
from wsss.refine.blocks.losses import balanced_cross_entropy

_TINY = 1e-7


def cross_losses(
    first: Float[Tensor, "batch labels height width"],
    second: Float[Tensor, "batch labels height width"],
    valid: Bool[Tensor, "batch height width"] | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Each of two predictions learns the labels that the other gives.

    Args:
        first: logits.
        second: logits of the same pixels.
        valid: pixels that count; None: all.

    Returns:
        The loss of the first by the labels of the second, and the other way round. No gradient
        goes through labels.
    """
    first_labels, second_labels = (
        logits.detach().argmax(1).to(torch.uint8) for logits in (first, second)
    )
    if valid is not None:
        first_labels = torch.where(valid, first_labels, IGNORED)
        second_labels = torch.where(valid, second_labels, IGNORED)
    return (
        balanced_cross_entropy(first, second_labels),
        balanced_cross_entropy(second, first_labels),
    )


def dice_loss(
    probabilities: Float[Tensor, "batch labels height width"],
    labels: UInt8[Tensor, "batch height width"],
    over: Literal["all", "present"],
) -> Float[Tensor, ""]:
    """One minus the mean overlap of prediction and label, over labels (eq. 15).

    If several processes share the batch, the sums run over all of them.

    Args:
        probabilities: of each label.
        labels: see the module; pixels of 255 do not count.
        over: ``all`` labels, of which those that the batch lacks have no overlap; or those that it
            has (0 if it has none).
    """
    ids = torch.arange(probabilities.shape[1], device=labels.device, dtype=torch.uint8)
    given = labels[:, None] == ids[:, None, None]  # (B, labels, H, W)
    counted = probabilities * (labels != IGNORED)[:, None]
    parts = (counted * given, counted, given)
    sums = torch.stack([part.sum((0, 2, 3), dtype=counted.dtype) for part in parts])
    overlap, predicted, present = distributed.sum_with_gradient(sums)
    missed = 1 - 2 * overlap / (predicted + present + _TINY)
    if over == "all":
        return missed.mean()
    shown = present > 0
    return (missed * shown).sum() / shown.sum().clamp_min(1)
