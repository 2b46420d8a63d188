"""What WeCLIP, ExCEL and WeCLIP+ share: a trained head, labels of crops, their losses."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Generic, TypeVar

from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from wsss.cams.other_features import OtherFeatures
from wsss.refine.base import CropOptions, Refiner, Setup
from wsss.refine.blocks.losses import affinity_labels, affinity_loss, balanced_cross_entropy, window
from wsss.refine.blocks.options import HeadOptions
from wsss.refine.blocks.pseudo_labels import ignore_band, padding_label

Options = TypeVar("Options", bound=HeadOptions)
Trained = TypeVar("Trained", bound=nn.Module)


class HeadRefiner(Refiner[Options], Generic[Options, Trained]):
    """A refiner that trains a head over frozen features, on labels of crops.

    Args:
        setup: see `Refiner`.
        head: all that is trained.
    """

    def __init__(self, setup: Setup[Options], head: Trained) -> None:
        super().__init__(setup)
        self.head = head.to(self.encoder.device)
        self.trained = self.head
        side = setup.crop // self.encoder.patch[0]
        self._grid = (side, side)

    @cached_property
    def other_features(self) -> OtherFeatures | None:
        """Features of an encoder besides CLIP, where the affinity compares them."""
        if not self.setup.cams.affinity.uses_dino:
            return None
        normalization = self.setup.encoder_input.normalization
        return OtherFeatures(self.setup.encoders["dino"], normalization)

    @property
    def crops(self) -> CropOptions:
        """See `Refiner.crops`."""
        return CropOptions(
            image_labels=self.options.crop_visibility == "image",
            ignore_band=ignore_band(self.options),
            padding=padding_label(self.options),
        )

    def losses(
        self,
        logits: Float[Tensor, "batch labels rows columns"],
        labels: UInt8[Tensor, "batch side side"],
        affinity: Float[Tensor, "batch patches patches"],
        pair_labels: UInt8[Tensor, "batch side side"],
    ) -> Mapping[str, Tensor]:
        """``L = L_seg + w L_aff``, with the parts ``segmentation`` and ``affinity``.

        Args:
            logits: of the decoder.
            affinity: between patches of a training crop, in 0..1.
            pair_labels: labels whose equal pairs the affinity learns.
        """
        parts = {
            "segmentation": balanced_cross_entropy(logits, labels),
            "affinity": self.pair_loss(affinity, pair_labels),
        }
        loss = parts["segmentation"] + self.options.affinity_weight * parts["affinity"]
        return {"loss": loss} | parts

    def pair_loss(
        self,
        affinity: Float[Tensor, "batch patches patches"],
        pair_labels: UInt8[Tensor, "batch side side"],
    ) -> Float[Tensor, ""]:
        """``L_aff``; see `losses`."""
        return affinity_loss(affinity, affinity_labels(pair_labels, self._grid, self._near))

    @cached_property
    def _near(self) -> Bool[Tensor, "patches patches"]:
        return window(self._grid, self.options.affinity_radius, self.encoder.device)
