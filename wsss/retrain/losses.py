"""Cross-entropy with label smoothing, as a loss of mmsegmentation."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from wsss.retrain.mm import MODELS, CrossEntropyLoss


@MODELS.register_module()
class SmoothedCrossEntropy(CrossEntropyLoss):  # type: ignore[misc]
    """Cross-entropy against targets that leave a little to every label (Szegedy et al., 2016).

    The label of a pixel has 1 - s + s / K of the target, each of the other K - 1 labels s / K.

    Args:
        label_smoothing: s, 0 … 1; 0 is the stock loss, to the bit.
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
        avg_factor: float | None = None,
        ignore_index: int = -100,
        **kwargs: Any,
    ) -> Float[Tensor, ""]:
        """The mean over the labelled pixels; 0 where there is none.

        Args:
            cls_score: logits.
            label: of each pixel.
            args: what the stock loss takes.
            avg_factor: what the sum is divided by, instead of the number of labelled pixels.
            ignore_index: label of pixels that do not count.
            kwargs: what the stock loss takes.
        """
        loss: Tensor = super().forward(
            cls_score, label, *args, avg_factor=avg_factor, ignore_index=ignore_index, **kwargs
        )
        if not self.label_smoothing:
            return loss
        labelled = label != ignore_index
        energies = torch.where(labelled, -cls_score.log_softmax(dim=1).mean(dim=1), 0)
        count = labelled.sum() if avg_factor is None else torch.tensor(avg_factor)
        uniform = self.loss_weight * energies.sum() / count.clamp(min=1)
        return (1 - self.label_smoothing) * loss + self.label_smoothing * uniform
