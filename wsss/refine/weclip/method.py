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
from functools import cached_property

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from wsss.cams.grad_cam import block_cams
from wsss.cams.maps import resize_maps
from wsss.cams.patch_affinity import pair_factor
from wsss.clip.text.embeddings import TextBank, text_bank
from wsss.refine.base import Setup
from wsss.refine.blocks.frozen import EncoderFeatures, encode
from wsss.refine.blocks.fusion import feature_affinity
from wsss.refine.blocks.model import HeadRefiner
from wsss.refine.blocks.pseudo_labels import crop_labels, shown_tags
from wsss.refine.blocks.refinement import refined_cams
from wsss.refine.training.crops import CropBatch
from wsss.refine.weclip.options import WeClipOptions


class WeClip(HeadRefiner[WeClipOptions]):
    """The refiner; see `wsss.refine.base.Refiner`."""

    def __init__(self, setup: Setup[WeClipOptions]) -> None:
        super().__init__(setup, blocks=setup.encoder_input.encoder.depth - 1)
        self.draws_at_inference = setup.infer.dropout == "on"
        self._crop_cams = self.options.crop_visibility != "image"
        self._has_factor = setup.cams.affinity.factor is not None

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

    def affinity(
        self, fused: Float[Tensor, "batch width rows columns"]
    ) -> Float[Tensor, "batch patches patches"]:
        """A_f between patches, in 0..1 (eq. 6 of docs/methods/weclip.md)."""
        cosine = self.options.affinity == "cosine"
        return feature_affinity(fused, self.options.temperature if cosine else None)

    def encode(self, batch: CropBatch, *, rfm: bool) -> EncoderFeatures:
        """Run the frozen encoder as far as the head and `pseudo_labels` need it.

        Args:
            batch: the crops.
            rfm: the refinement module takes part.
        """
        cams = self.setup.cams
        blocks = 0
        if rfm:
            blocks = self.options.rfm_blocks
        elif batch.labels is None and cams.has_affinity:
            blocks = cams.affinity.attention_blocks
        return encode(
            self.encoder,
            batch.images,
            attention_blocks=blocks,
            last_block=self._crop_cams,
            projected=self._has_factor and (rfm or (batch.labels is None and cams.has_affinity)),
        )

    @torch.no_grad()
    def pseudo_labels(
        self,
        batch: CropBatch,
        features: EncoderFeatures,
        affinity: Float[Tensor, "batch patches patches"] | None,
    ) -> UInt8[Tensor, "batch side side"]:
        """Y: 0 background, class + 1, 255 where nothing is to be learned (eq. 16).

        Args:
            batch: the crops.
            features: what `encode` gave.
            affinity: A_f where the refinement module takes part, else None.
        """
        if affinity is None and batch.labels is not None:
            return batch.labels
        maps, shown, peak = self._initial_cams(batch, features)
        maps = self._refined(features, maps, batch.image_index, affinity)
        if peak is not None:
            maps = maps * peak[:, None, None]
        return crop_labels(batch, maps, shown, self.options)

    def _initial_cams(
        self, batch: CropBatch, features: EncoderFeatures
    ) -> tuple[Tensor, Bool[Tensor, " rows"], Tensor | None]:
        """M_init (eq. 7), whether a row's class is shown, and the height to which M_f is scaled.

        A map of the whole image tells how much of a class the crop shows. Scaling by its own
        extremes would lose that and give every tag a full peak, so the peak that the image's
        refined map has on the crop is restored.
        """
        if not self._crop_cams:
            every = torch.ones_like(batch.probabilities, dtype=torch.bool)
            return batch.initial, every, batch.maps.flatten(1).amax(1)
        assert features.block is not None
        cams = self.setup.cams
        grad_cams = block_cams(
            self.encoder, features.block, features.grid, batch.tags, self.bank, cams.gradient
        )
        maps = grad_cams.scaled(cams.scaling)
        return maps, shown_tags(batch, self.options, grad_cams.probabilities), None

    @cached_property
    def bank(self) -> TextBank:
        """Text features of classes and backgrounds, for Grad-CAMs and affinities of the crops."""
        setup = self.setup
        words = (setup.classes.prompts, setup.classes.backgrounds, setup.template)
        bank = text_bank(setup.encoder_input.clip, *words, cache_dir=setup.embeddings)
        return bank.to(self.encoder.device)

    def _refined(
        self,
        features: EncoderFeatures,
        maps: Float[Tensor, "rows height width"],
        image_index: Tensor,
        affinity: Float[Tensor, "batch patches patches"] | None,
    ) -> Float[Tensor, "rows height width"]:
        """M_f: maps spread between patches (eq. 8-12); unchanged where nothing spreads them."""
        cams, factor = self.setup.cams, None
        if features.projected is not None:
            bank = self.bank if cams.affinity.uses_texts else None
            factor = pair_factor(features.projected, bank, cams.affinity)
        if features.attention is None and factor is None:
            return maps
        args = (features.attention, maps, image_index, cams, affinity)
        return refined_cams(*args, self.options.block_distance, factor)

    def cam_scores(
        self,
        pixels: Float[Tensor, "3 height width"],
        classes: Sequence[int],
        cams: Float[Tensor, "classes h w"],
    ) -> Float[Tensor, "classes rows columns"]:
        """The image's CAM, refined with the learned affinity."""
        features = encode(
            self.encoder,
            pixels[None],
            attention_blocks=self.options.rfm_blocks,
            projected=self._has_factor,
        )
        fused = self.head(features.features, features.grid).fused
        only_image = torch.zeros(len(cams), dtype=torch.long)
        maps = resize_maps(cams, features.grid)
        return self._refined(features, maps, only_image, self.affinity(fused))

    def logits(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch labels rows columns"]:
        """The decoder's logits on the patch grid."""
        features = encode(self.encoder, images)
        return self.head(features.features, features.grid).logits
