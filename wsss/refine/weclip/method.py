"""WeCLIP (CVPR 2024): a decoder over frozen CLIP features, taught by CAMs that it helps to refine.

The frozen encoder gives features of all blocks and, with the tags, CAMs M_init. A small head fuses
the features (F_u) and decodes them into labels. Its teacher are pseudo labels made at every step:
M_init is spread along an affinity between patches, first plain attention, then (RFM) attention of
the blocks that agree with the learned affinity A_f; pixel-adaptive refinement follows. Symbols and
equations: docs/methods/weclip.md. Departures of the released code are options of
``refine.weclip``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from wsss.cams.maps import resize_maps
from wsss.refine.base import Setup
from wsss.refine.blocks.frozen import EncoderFeatures, encode
from wsss.refine.blocks.grad_cam_labels import GradCamRefiner
from wsss.refine.blocks.head import Head
from wsss.refine.training.crops import CropBatch
from wsss.refine.weclip.options import WeClipOptions


class WeClip(GradCamRefiner[WeClipOptions, Head]):
    """The refiner; see `wsss.refine.base.Refiner`."""

    def __init__(self, setup: Setup[WeClipOptions]) -> None:
        encoder, labels = setup.encoder_input.encoder, setup.classes.label_count
        super().__init__(setup, Head(encoder.depth - 1, encoder.width, labels, setup.options))
        self.draws_at_inference = setup.infer.dropout == "on"

    def loss(self, step: int, batch: CropBatch) -> Mapping[str, Tensor]:
        """``L = L_seg + w L_aff`` (eq. 20 of docs/methods/weclip.md), w: ``affinity_weight``.

        The refinement module takes part from step ``rfm_start`` on.
        """
        logits, affinity, labels = self._taught(step, batch)
        return self.losses(logits, labels, affinity, labels)

    @torch.no_grad()
    def supervision(self, step: int, batch: CropBatch) -> UInt8[Tensor, "batch side side"]:
        """Y of a step; see `Refiner.supervision`."""
        return self._taught(step, batch)[2]

    def _taught(self, step: int, batch: CropBatch) -> tuple[Tensor, Tensor, Tensor]:
        """The decoder's logits, A_f, and the labels that both learn."""
        rfm = step >= self.options.rfm_start
        features = self.encode(batch, rfm=rfm)
        _, fused, logits = self.head(features.features, features.grid)
        affinity = self.affinity(fused)
        labels = self.pseudo_labels(batch, features, affinity.detach() if rfm else None)
        return logits, affinity, labels

    def supervised_loss(self, batch: CropBatch) -> Mapping[str, Tensor]:
        """Eq. 20 with the truth as Y, from the first step on; neither CAMs nor RFM take part."""
        assert batch.labels is not None
        features = encode(self.encoder, batch.images)
        _, fused, logits = self.head(features.features, features.grid)
        return self.losses(logits, batch.labels, self.affinity(fused), batch.labels)

    def encode(self, batch: CropBatch, *, rfm: bool) -> EncoderFeatures:
        """Run the frozen encoder as far as the head and `pseudo_labels` need it.

        Args:
            rfm: the refinement module takes part.
        """
        cams, depth, blocks = self.setup.cams, self.encoder.depth, 0
        spreads = rfm or (batch.labels is None and cams.has_affinity)
        if spreads:
            blocks = self.options.rfm_blocks_of(depth) if rfm else cams.affinity.blocks_of(depth)
        return self._encoded(batch.images, blocks, compares=spreads, last_block=self._crop_cams)

    def _encoded(
        self,
        images: Float[Tensor, "batch 3 height width"],
        attention_blocks: int,
        *,
        compares: bool,
        last_block: bool = False,
    ) -> EncoderFeatures:
        """A pass of the encoder, with what the affinity compares, if ``compares``."""
        features = encode(
            self.encoder,
            images,
            attention_blocks=attention_blocks,
            last_block=last_block,
            projected=compares and self.setup.cams.affinity.uses_clip,
        )
        if not compares or self.other_features is None:
            return features
        return replace(features, compared=self.other_features(images, features.grid))

    @torch.no_grad()
    def pseudo_labels(
        self,
        batch: CropBatch,
        features: EncoderFeatures,
        affinity: Float[Tensor, "batch patches patches"] | None,
    ) -> UInt8[Tensor, "batch side side"]:
        """Y: 0 background, class + 1, 255 where nothing is to be learned (eq. 16).

        Args:
            features: what `encode` gave.
            affinity: A_f where the refinement module takes part, else None.
        """
        if affinity is None and batch.labels is not None:
            return batch.labels
        return self.labels_from_cams(batch, features, affinity)

    def cam_scores(
        self,
        pixels: Float[Tensor, "3 height width"],
        classes: Sequence[int],
        cams: Float[Tensor, "classes h w"],
    ) -> Float[Tensor, "classes rows columns"]:
        """The image's CAM, refined with the learned affinity."""
        blocks = self.options.rfm_blocks_of(self.encoder.depth)
        features = self._encoded(pixels[None], blocks, compares=True)
        fused = self.head(features.features, features.grid).fused
        only_image = torch.zeros(len(cams), dtype=torch.long)
        maps = resize_maps(cams, features.grid)
        return self.refined(features, maps, only_image, self.affinity(fused))

    def logits(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch labels rows columns"]:
        """The decoder's logits on the patch grid."""
        features = encode(self.encoder, images)
        return self.head(features.features, features.grid).logits
