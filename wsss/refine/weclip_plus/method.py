"""WeCLIP+ (TPAMI 2025): two frozen encoders, CLIP and DINOv2, a head for each, one decoder of both.

As in WeCLIP, Grad-CAMs of CLIP teach at every step, spread along an affinity that the heads have
learned. New are DINOv2's features in decoder and affinity, a gate by the network's own belief on
the sources of the spreading, two losses, and labels that the network gives itself late in the
training. Symbols and equations: docs/methods/weclip-plus.md. Departures of the released code are
options of ``refine.weclip_plus``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from wsss.cams.maps import resize_maps
from wsss.cams.other_features import on_grid
from wsss.compute.packed_rows import to_device
from wsss.dino.encoder import DinoEncoder, DinoFeatures
from wsss.refine.base import CropOptions, Setup
from wsss.refine.blocks.frozen import EncoderFeatures, encode
from wsss.refine.blocks.grad_cam_labels import GradCamRefiner
from wsss.refine.blocks.losses import balanced_cross_entropy
from wsss.refine.inference import cut_to
from wsss.refine.training.crops import CropBatch
from wsss.refine.weclip_plus.head import BothDecoded, BothHeads, FullSize
from wsss.refine.weclip_plus.losses import cross_losses, dice_loss
from wsss.refine.weclip_plus.options import WeClipPlusOptions


@dataclass(frozen=True)
class BothFeatures:
    """One pass of both frozen encoders."""

    clip: EncoderFeatures
    """Of one block, the last but one."""
    dino: DinoFeatures


class WeClipPlus(GradCamRefiner[WeClipPlusOptions, BothHeads]):
    """The refiner; see `wsss.refine.base.Refiner`."""

    def __init__(self, setup: Setup[WeClipPlusOptions]) -> None:
        dino, encoder = setup.encoders["dino"], setup.encoder_input.encoder
        assert isinstance(dino, DinoEncoder)
        self.dino = dino
        labels = setup.classes.label_count
        super().__init__(setup, BothHeads(encoder.width, dino.width, labels, setup.options))
        skipped = self.options.cam_block == "skipped"
        self._last_input = encoder.depth - (3 if skipped else 2)

    @property
    def crops(self) -> CropOptions:
        """See `Refiner.crops`. The refinement module makes the labels from the first step on."""
        return replace(super().crops, image_labels=False)

    @property
    def unit(self) -> tuple[int, int]:
        """See `Refiner.unit`. DINOv2 sees what exceeds CLIP's patches, which are cut later."""
        return (1, 1)

    def loss(self, step: int, batch: CropBatch) -> Mapping[str, Tensor]:
        """The sum of four losses (eq. 16 of docs/methods/weclip-plus.md).

        The affinity learns the labels from CAMs, also where the network has labelled pixels.
        """
        full, affinity, labels = self._taught(batch)
        learned = self.own_labels(step, batch, full.probabilities, labels)
        return self.losses_of(batch, full, affinity, learned, labels)

    @torch.no_grad()
    def supervision(self, step: int, batch: CropBatch) -> UInt8[Tensor, "batch side side"]:
        """Y of a step; see `Refiner.supervision`."""
        full, _, labels = self._taught(batch)
        return self.own_labels(step, batch, full.probabilities, labels)

    def supervised_loss(self, batch: CropBatch) -> Mapping[str, Tensor]:
        """The same with the truth as Y; neither CAMs, RFM+ nor self-training take part."""
        assert batch.labels is not None
        decoded = self.decode(self.encode(batch.images))
        affinity = self.affinity(self.fused(decoded))
        full = decoded.at((batch.labels.shape[1], batch.labels.shape[2]))
        return self.losses_of(batch, full, affinity, batch.labels, batch.labels)

    def _taught(self, batch: CropBatch) -> tuple[FullSize, Tensor, Tensor]:
        """What the network gives, A_f, and the labels from CAMs."""
        features = self.encode(
            batch.images,
            attention_blocks=self.options.rfm_blocks_of(self.encoder.depth),
            last_block=self._crop_cams,
            projected=self.setup.cams.affinity.uses_clip,
        )
        decoded = self.decode(features)
        affinity = self.affinity(self.fused(decoded))
        rows = (batch.image_index, batch.classes)
        sources = self.sources(decoded.logits, *rows)
        labels = self.labels_from_cams(batch, features.clip, affinity.detach(), sources)
        return decoded.at((labels.shape[1], labels.shape[2])), affinity, labels

    def encode(
        self,
        images: Float[Tensor, "batch 3 height width"],
        *,
        attention_blocks: int = 0,
        last_block: bool = False,
        projected: bool = False,
    ) -> BothFeatures:
        """Run both frozen encoders, no further than necessary (eq. 1-4).

        Args:
            images: with CLIP's configured normalisation, of any size of at least a patch.
            attention_blocks: number of CLIP's last blocks whose attention is returned.
            last_block: also run CLIP's last block in full, ready for Grad-CAM.
            projected: also return CLIP's patches in the space of the texts.
        """
        normalization = self.setup.encoder_input.normalization
        dino = self.dino.encode(self.dino.renormalized(images, *normalization))
        clip = encode(
            self.encoder,
            cut_to(images, self.encoder.patch),
            attention_blocks=attention_blocks,
            last_block=last_block,
            projected=projected,
            features_of=(self.encoder.depth - 2,),
            last_input=self._last_input,
        )
        if attention_blocks and self.other_features is not None:
            clip = replace(clip, compared=on_grid(dino.tokens, dino.grid, clip.grid))
        return BothFeatures(clip, dino)

    def decode(self, features: BothFeatures) -> BothDecoded:
        """What the heads and the decoder make of both encoders' features (eq. 5-7)."""
        clip, dino = features.clip, features.dino
        return self.head(clip.features[0], clip.grid, dino.tokens, dino.grid)

    def fused(self, decoded: BothDecoded) -> Float[Tensor, "batch width rows columns"]:
        """The features behind the learned affinity (eq. 8)."""
        if self.options.affinity_features == "clip":
            return decoded.clip
        return torch.cat([decoded.clip, decoded.dino], dim=1)

    @torch.no_grad()
    def sources(
        self,
        logits: Float[Tensor, "batch labels rows columns"],
        image_index: Int[Tensor, " maps"],
        classes: Int[Tensor, " maps"],
    ) -> Float[Tensor, "maps rows columns"] | None:
        """P_k: how far the network believes in each map's class, in 0..1 (eq. 9).

        Args:
            logits: z.
            image_index: the image of each map; on the CPU.
            classes: 0-based; on the CPU.
        """
        if self.options.source_gate == "none":
            return None
        image, label = to_device(torch.stack([image_index, 1 + classes]), logits.device)
        return logits.softmax(1)[image, label]

    @torch.no_grad()
    def own_labels(
        self,
        step: int,
        batch: CropBatch,
        probabilities: Float[Tensor, "batch labels side side"],
        labels: UInt8[Tensor, "batch side side"],
    ) -> UInt8[Tensor, "batch side side"]:
        """Labels of which confident pixels are replaced by the network's own (eq. 12).

        Nothing is learned from an image without tags, nor from ignored padding.

        Args:
            step: 0-based.
            labels: from CAMs.
        """
        start = self.options.self_training_start
        if start is None or step < start:
            return labels
        rows = torch.stack([batch.image_index, 1 + batch.classes])
        may = torch.zeros(probabilities.shape[:2], dtype=torch.bool)
        may[rows[0], 0] = True  # an image without tags has no row
        if self.options.own_labels_among == "all":
            may[rows[0]] = True
        else:
            may[rows[0], rows[1]] = True
        allowed = probabilities * to_device(may, probabilities.device)[:, :, None, None]
        largest, own = allowed.max(1)
        replaced = largest > self.options.self_training_confidence
        if self.options.padding == "ignored":
            replaced &= batch.valid
        return torch.where(replaced, own.to(torch.uint8), labels)

    def losses_of(
        self,
        batch: CropBatch,
        full: FullSize,
        affinity: Float[Tensor, "batch patches patches"],
        labels: UInt8[Tensor, "batch side side"],
        pair_labels: UInt8[Tensor, "batch side side"],
    ) -> Mapping[str, Tensor]:
        """``loss`` and its parts (eq. 13-16).

        Args:
            affinity: A_f.
            pair_labels: labels whose equal pairs the affinity learns.
        """
        options = self.options
        valid = batch.valid if options.padding == "ignored" else None
        parts = {
            "segmentation": balanced_cross_entropy(full.both, labels),
            "affinity": self.pair_loss(affinity, pair_labels),
            "cross": torch.stack(cross_losses(full.clip, full.dino, valid)).sum(),
            "dice": dice_loss(full.probabilities, labels, options.dice_labels),
        }
        loss = (
            parts["segmentation"]
            + options.affinity_weight * parts["affinity"]
            + options.cross_weight * parts["cross"]
            + options.dice_weight * parts["dice"]
        )
        return {"loss": loss} | parts

    def cam_scores(
        self,
        pixels: Float[Tensor, "3 height width"],
        classes: Sequence[int],
        cams: Float[Tensor, "classes h w"],
    ) -> Float[Tensor, "classes rows columns"]:
        """The image's CAM, spread from gated sources with the learned affinity (eq. 10).

        With ``cam_block: skipped`` the CAM is computed anew, since the stage CAMs does not skip.
        """
        anew = self._crop_cams and self.options.cam_block == "skipped"
        features = self.encode(
            pixels[None],
            attention_blocks=self.options.rfm_blocks_of(self.encoder.depth),
            last_block=anew,
            projected=self.setup.cams.affinity.uses_clip,
        )
        clip = features.clip
        rows = (torch.zeros(len(classes), dtype=torch.long), torch.tensor(classes).long())
        if clip.block is None or not anew:
            maps = resize_maps(cams, clip.grid)
        else:
            maps = self.grad_cams(clip, [classes]).scaled(self.setup.cams.scaling)
        decoded = self.decode(features)
        sources = self.sources(decoded.logits, *rows)
        return self.refined(clip, maps, rows[0], self.affinity(self.fused(decoded)), sources)

    def logits(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch labels rows columns"]:
        """The mean of both heads' logits, on CLIP's grid."""
        return self.decode(self.encode(images)).logits
