"""Losses and their company as mmsegmentation has them, but without a wait for a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from wsss.compute import distributed
from wsss.retrain.mm import MODELS, CrossEntropyLoss, decode_head

_EPS = torch.finfo(torch.float32).eps


@MODELS.register_module()
class SmoothedCrossEntropy(CrossEntropyLoss):  # type: ignore[misc]
    """Cross-entropy against targets that leave a little to every label (Szegedy et al., 2016).

    The label of a pixel has 1 - s + s / K of the target, each of the other K - 1 labels s / K. The
    labelled pixels are counted on the device; stock reads the number. Where several processes share
    a batch, those of all count: a process with few would else count as much as one with many.

    Args:
        label_smoothing: s, 0 … 1; 0 is the stock loss, on a CPU to the bit.
        rest: what the stock loss takes. ``avg_non_ignore`` must be true, as it is here everywhere.
    """

    def __init__(self, label_smoothing: float = 0.0, **rest: Any) -> None:
        super().__init__(**rest)
        self.label_smoothing = label_smoothing

    def forward(
        self,
        cls_score: Float[Tensor, "batch labels height width"],
        label: Integer[Tensor, "batch height width"],
        *args: Any,
        ignore_index: int = -100,
        **kwargs: Any,
    ) -> Float[Tensor, ""]:
        """The mean over the labelled pixels; 0 where there is none.

        Of several processes each has its part of the mean times their number, since their gradients
        are averaged afterwards.

        Args:
            cls_score: logits.
            label: of each pixel.
            args: what the stock loss takes.
            ignore_index: label of pixels that do not count.
            kwargs: what the stock loss takes.
        """
        labelled = label != ignore_index
        count = labelled.sum()
        if (processes := distributed.world_size()) > 1:
            count = distributed.all_sum(count) / processes
        loss: Tensor = super().forward(
            cls_score, label, *args, avg_factor=count, ignore_index=ignore_index, **kwargs
        )
        if not self.label_smoothing:
            return loss
        energies = torch.where(labelled, -cls_score.log_softmax(dim=1).mean(dim=1), 0)
        uniform = self.loss_weight * energies.sum() / count.clamp(min=1)
        return (1 - self.label_smoothing) * loss + self.label_smoothing * uniform


def accuracy(
    pred: Float[Tensor, "batch labels height width"],
    target: Integer[Tensor, "batch height width"],
    *,
    ignore_index: int,
) -> Float[Tensor, " 1"]:
    """Share of the labelled pixels on which the largest logit is that of their label, in percent.

    Where no two logits tie for the largest it equals mmsegmentation's to the bit. That selects the
    labelled pixels, for which the host waits until the GPU has counted them, and sorts the logits.
    """
    labelled = target != ignore_index
    winner = pred.max(1).indices  # on a CPU twice as fast as argmax
    right = ((winner == target) & labelled).sum().float() + _EPS
    percent = 100.0 / (labelled.sum().double() + _EPS)
    return (right * percent.float())[None]


@contextmanager
def accuracy_without_waits() -> Iterator[None]:
    """Let the heads of mmsegmentation measure with `accuracy`."""
    with mock.patch.object(decode_head, "accuracy", accuracy):
        yield
