"""ExCEL (CVPR 2025): a decoder over frozen CLIP features, taught by patch-text CAMs.

The frozen encoder gives features of all blocks and, without a gradient, CAMs from the similarity of
its patches to texts (`wsss.cams.patch_text`). The head of WeCLIP fuses and decodes the features. At
first the static CAMs are its teacher; then the relation between its fused features shifts the
encoder's calibrated attention (LVC), and the dynamic CAMs that follow teach it. Symbols and
equations: docs/methods/excel.md. Departures of the released code are options of ``refine.excel``
and ``cams.patch_text``. Its choice of training crops by looking at pixel labels is none of them:
training never opens those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from wsss.cams.maps import scale_maps
from wsss.cams.patch_affinity import pair_factor
from wsss.cams.patch_text import PatchText
from wsss.clip.calibration import check_linear
from wsss.clip.text.attributes import described, enriched_bank
from wsss.clip.text.embeddings import TextBank
from wsss.compute import distributed
from wsss.labels.ignore import IGNORED
from wsss.refine.base import Setup
from wsss.refine.blocks.head import Head
from wsss.refine.blocks.model import HeadRefiner
from wsss.refine.blocks.pseudo_labels import crop_labels, shown_tags
from wsss.refine.blocks.refinement import refined_cams
from wsss.refine.excel.options import ExcelOptions
from wsss.refine.excel.relation import CalibratedFeatures, encode, relation, shift
from wsss.refine.photo_scaler import PhotoScaler
from wsss.refine.training.crops import CropBatch


class Excel(HeadRefiner[ExcelOptions, Head]):
    """The refiner; see `wsss.refine.base.Refiner`."""

    def __init__(self, setup: Setup[ExcelOptions]) -> None:
        encoder, labels = setup.encoder_input.encoder, setup.classes.label_count
        super().__init__(setup, Head(encoder.depth, encoder.width, labels, setup.options))
        check_linear(self.encoder.blocks)
        nothing = torch.zeros(0, setup.encoder_input.clip.embed_dim)
        # The decoder does without texts: `patch_text` encodes them when they are first needed.
        self._calibration = PatchText(
            self.encoder, TextBank(nothing, nothing), setup.cams.patch_text
        )

    def loss(self, step: int, batch: CropBatch) -> Mapping[str, Tensor]:
        """``L = L_seg + w L_aff`` (eq. 21 of docs/methods/excel.md), w: ``affinity_weight``.

        The learned relation takes part from step ``lvc_start`` on. The paper calls L_aff the
        diversity loss.
        """
        logits, related, labels = self._taught(step, batch)
        start = self.options.self_training_start
        pair_labels = labels if start is None or step < start else self._predicted(logits, batch)
        return self.losses(logits, labels, related.sigmoid(), pair_labels)

    @torch.no_grad()
    def supervision(self, step: int, batch: CropBatch) -> UInt8[Tensor, "batch side side"]:
        """Labels from the CAMs of a step, static or dynamic; see `Refiner.supervision`."""
        return self._taught(step, batch)[2]

    def _taught(self, step: int, batch: CropBatch) -> tuple[Tensor, Tensor, Tensor]:
        """The decoder's logits, the relation between patches, and the labels to learn."""
        options = self.options
        dynamic = step >= options.lvc_start
        features = self.encode(batch.images, dynamic=dynamic)
        clean, fused, logits = self.head(features.features, features.grid)
        related = relation(fused, options)
        calibrating = None
        if dynamic:
            noisy = options.relation_dropout == "on"
            calibrating = related.detach() if noisy else relation(clean.detach(), options)
        return logits, related, self.pseudo_labels(batch, features, calibrating)

    def supervised_loss(self, batch: CropBatch) -> Mapping[str, Tensor]:
        """Eq. 21 with the truth as Y, also for the pairs; neither CAMs nor LVC take part."""
        assert batch.labels is not None
        features = encode(self._calibration, batch.images, self.options.features)
        _, fused, logits = self.head(features.features, features.grid)
        related = relation(fused, self.options).sigmoid()
        return self.losses(logits, batch.labels, related, batch.labels)

    def encode(
        self, images: Float[Tensor, "batch 3 height width"], *, dynamic: bool
    ) -> CalibratedFeatures:
        """Run the frozen encoder as far as the head and the CAMs need it."""
        affinity = self.setup.cams.affinity
        depth = self.encoder.depth
        static = affinity.blocks_of(depth) if affinity.enabled else 0
        return encode(
            self._calibration,
            images,
            self.options.features,
            attention_blocks=self.options.lvc_blocks_of(depth) if dynamic else static,
            value_updates=dynamic,
        )

    @torch.no_grad()
    def pseudo_labels(
        self,
        batch: CropBatch,
        features: CalibratedFeatures,
        related: Float[Tensor, "batch patches patches"] | None,
    ) -> UInt8[Tensor, "batch side side"]:
        """Label every pixel of crops: 0 background, class + 1, 255 where nothing is to be learned.

        Args:
            related: from `relation`, detached; None before it takes part.
        """
        if related is None and batch.labels is not None:
            return batch.labels
        tokens = self.tokens(features, related)
        rows = (batch.image_index, batch.classes)
        maps = self.patch_text.maps(tokens, features.grid, *rows)
        probs = self.patch_text.probabilities(tokens, *rows)
        factor = None
        if related is not None:
            factor = self.factor(batch.images, features)
        elif self.setup.cams.affinity.enabled:
            factor = self.factor(batch.images, features, tokens)
        maps = self.spread(features.attention, maps, batch.image_index, related, factor)
        images = None
        if self.options.par_image == "truncated":
            images = self.setup.encoder_input.truncated(batch.images)
        shown = shown_tags(batch, self.options, probs)
        return crop_labels(batch, maps, shown, self.options, images)

    @torch.no_grad()
    def tokens(
        self,
        features: CalibratedFeatures,
        related: Float[Tensor, "batch patches patches"] | None = None,
    ) -> Float[Tensor, "batch tokens embed_dim"]:
        """Calibrated tokens in the joint space: static, or dynamic by the relation (eq. 18).

        Args:
            features: from `encode`.
            related: from `relation`; None for the static ones.
        """
        stream = features.stream
        if related is not None:
            assert features.value_updates is not None
            moved = self._calibration.gain * (shift(related) @ features.value_updates)
            stream = torch.cat([stream[:, :1], stream[:, 1:] + moved], dim=1)
        return self._calibration.features(stream)

    @torch.no_grad()
    def factor(
        self,
        images: Float[Tensor, "batch 3 height width"],
        features: CalibratedFeatures,
        static: Float[Tensor, "batch tokens embed_dim"] | None = None,
    ) -> Float[Tensor, "batch patches patches"] | None:
        """The constant factor of the affinity, from the static tokens; None for plain attention.

        Args:
            features: from `encode`, of them.
            static: from `tokens`, where they are at hand.
        """
        affinity = self.setup.cams.affinity
        if affinity.factor is None:
            return None
        if self.other_features is not None:
            return pair_factor(self.other_features(images, features.grid), None, affinity)
        tokens = self.tokens(features) if static is None else static
        return pair_factor(tokens[:, 1:], self.bank if affinity.uses_texts else None, affinity)

    @torch.no_grad()
    def spread(
        self,
        attention: Float[Tensor, "batch candidates patches patches"] | None,
        maps: Float[Tensor, "rows height width"],
        image_index: Int[Tensor, " rows"],
        related: Float[Tensor, "batch patches patches"] | None = None,
        factor: Float[Tensor, "batch patches patches"] | None = None,
    ) -> Float[Tensor, "rows height width"]:
        """Spread CAMs along the attention of the encoder, and the learned affinity if there is one.

        Args:
            attention: from `encode`; None where it spreads no map.
            maps: in 0..1.
            image_index: the image of each row, in ascending order.
            related: from `relation`; None before it is learned.
            factor: from `factor`.
        """
        if attention is None and factor is None:
            return maps
        affinity = None if related is None else related.sigmoid()
        args = (attention, maps, image_index, self.setup.cams, affinity)
        return refined_cams(*args, self.options.block_distance, factor=factor)

    @torch.no_grad()
    def _predicted(
        self, logits: Float[Tensor, "batch labels rows columns"], batch: CropBatch
    ) -> UInt8[Tensor, "batch side side"]:
        """The decoder's prediction of the crops."""
        size = (batch.images.shape[-2], batch.images.shape[-1])
        full = F.interpolate(logits, size, mode="bilinear", align_corners=False)
        labels = full.argmax(1).to(torch.uint8)
        if self.options.padding == "ignored":
            return labels.masked_fill(~batch.valid, IGNORED)
        return labels

    @cached_property
    def bank(self) -> TextBank:
        """Text features of classes, enriched as configured, and backgrounds."""
        setup, tse = self.setup, self.setup.cams.patch_text.tse
        words = (setup.classes, setup.template, tse, setup.embeddings)
        bank = enriched_bank(setup.encoder_input.clip, *words)
        return bank.to(self.encoder.device)

    @cached_property
    def patch_text(self) -> PatchText:
        """Similarity of patches to the texts of classes and backgrounds."""
        return PatchText(self.encoder, self.bank, self.setup.cams.patch_text)

    def texts(self) -> Any:
        """The descriptions that enrich the class texts."""
        return described(self.setup.classes, self.setup.cams.patch_text.tse)

    def train_mode(self, mode: bool) -> None:
        """See `Refiner.train_mode`."""
        if mode and distributed.world_size() > 1 and self.options.relation_mean == "batch":
            raise ValueError(
                "refine.excel.relation_mean is batch (as released): the mean runs over a whole "
                "batch, of which several processes would each see a part; train with one GPU, or "
                "set it to image"
            )
        super().train_mode(mode)

    def cam_scores(
        self,
        pixels: Float[Tensor, "3 height width"],
        classes: Sequence[int],
        cams: Float[Tensor, "classes h w"],
    ) -> Float[Tensor, "classes rows columns"]:
        """The dynamic CAM: maximum of the image and its mirror image, spread.

        With ``infer.scores: static_cam`` the static CAM, without mirroring.
        """
        rows = (
            torch.zeros(len(classes), dtype=torch.long),
            torch.tensor(classes, dtype=torch.long),
        )
        static = self.setup.infer.scores == "static_cam"
        # The mirror image is in the batch, over which the published mean of the relation runs.
        images = pixels[None] if static else torch.stack([pixels, pixels.flip(-1)])
        features = self.encode(images, dynamic=True)
        related = relation(self.head(features.features, features.grid).clean, self.options)
        tokens = self.tokens(features, None if static else related)
        maps, *mirrored = (
            self.patch_text.maps(of_image, features.grid, *rows) for of_image in tokens.split(1)
        )
        if mirrored:
            largest = torch.maximum(maps, mirrored[0].flip(-1))
            maps = scale_maps(largest, self.options.mirror_scaling)
        attention = None if features.attention is None else features.attention[:1]
        factor = self.factor(images, features)
        factor = None if factor is None else factor[:1]
        return self.spread(attention, maps, rows[0], related[:1], factor)

    @cached_property
    def scaled(self) -> PhotoScaler:
        """Each scale is made from the photo."""
        return replace(super().scaled, scales_from="photo")

    def logits(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch labels rows columns"]:
        """The decoder's logits on the patch grid."""
        features = encode(self._calibration, images, self.options.features)
        return self.head(features.features, features.grid).logits
