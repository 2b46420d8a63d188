"""Layers and losses of processes that share a batch, so that the gradient is that of the batch."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Integer
from torch import Tensor

from wsss.compute import distributed
from wsss.retrain.losses import SmoothedCrossEntropy
from wsss.retrain.mm import MODELS

MODELS.register_module("SharedBN", module=distributed.SharedBatchNorm)


@MODELS.register_module()
class SharedCrossEntropy(SmoothedCrossEntropy):
    """Cross-entropy as a mean over the labelled pixels of all processes.

    Stock averages over those of one process, so that a process with few labelled pixels would
    count as much as one with many.
    """

    def forward(
        self,
        cls_score: Float[Tensor, "batch labels height width"],
        label: Integer[Tensor, "batch height width"],
        *args: Any,
        ignore_index: int = -100,
        **kwargs: Any,
    ) -> Float[Tensor, ""]:
        """The loss, times the number of processes: their gradients are averaged afterwards."""
        labelled = distributed.all_sum((label != ignore_index).sum())
        return super().forward(
            cls_score,
            label,
            *args,
            avg_factor=labelled / distributed.world_size(),
            ignore_index=ignore_index,
            **kwargs,
        )
