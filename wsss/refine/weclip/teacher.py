"""WeCLIP's teacher: pseudo labels of training crops, made while the head trains.

Eq. 7-16 of docs/methods/weclip.md.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from wsss.cams.grad_cam import block_cams
from wsss.clip.encoder import ClipEncoder
from wsss.clip.text.embeddings import TextBank
from wsss.config.model import Config
from wsss.refine.blocks.frozen import EncoderFeatures, encode
from wsss.refine.blocks.fusion import feature_affinity
from wsss.refine.blocks.pseudo_labels import crop_labels, shown_tags
from wsss.refine.blocks.refinement import refined_cams
from wsss.refine.training.crops import CropBatch
from wsss.refine.weclip.options import WeClipOptions


def learned_affinity(
    fused: Float[Tensor, "batch width rows columns"], settings: WeClipOptions
) -> Float[Tensor, "batch patches patches"]:
    """A_f between patches, in 0..1, as configured."""
    return feature_affinity(fused, settings.temperature if settings.affinity == "cosine" else None)


class PseudoLabels:
    """Makes the labels of crops.

    Args:
        config: cams and refine.
        encoder: the frozen encoder.
        bank: text features of classes and backgrounds, for Grad-CAMs of the crops; None: the CAMs
            of the whole images are used.
    """

    def __init__(self, config: Config, encoder: ClipEncoder, bank: TextBank | None) -> None:
        self.encoder, self._bank = encoder, bank
        self._cams, self._settings = config.cams, config.refine.section(WeClipOptions)

    def look(self, batch: CropBatch, *, rfm: bool) -> EncoderFeatures:
        """Run the frozen encoder, as far as the head and `labels` need it.

        Args:
            batch: on the encoder's device.
            rfm: the refinement module takes part.
        """
        if rfm:
            blocks = self._settings.rfm_blocks
        elif batch.labels is None and self._cams.has_affinity:
            blocks = self._cams.affinity.last_blocks
        else:
            blocks = 0
        return encode(
            self.encoder, batch.images, attention_blocks=blocks, last_block=self._bank is not None
        )

    @torch.no_grad()
    def labels(
        self,
        batch: CropBatch,
        frozen: EncoderFeatures,
        affinity: Float[Tensor, "batch patches patches"] | None,
    ) -> UInt8[Tensor, "batch side side"]:
        """Label every pixel: 0 background, class + 1, 255 where nothing is to be learned.

        Args:
            batch: on the encoder's device.
            frozen: what `look` gave.
            affinity: A_f where the refinement module takes part, else None.
        """
        if affinity is None and batch.labels is not None:
            return batch.labels
        maps, shown, peak = self._initial(batch, frozen)
        if frozen.attention is not None:
            args = (frozen.attention, maps, batch.owner, self._cams, affinity)
            maps = refined_cams(*args, self._settings.block_distance)
        if peak is not None:
            maps = maps * peak[:, None, None]
        return crop_labels(batch, maps, shown, self._settings)

    def _initial(
        self, batch: CropBatch, frozen: EncoderFeatures
    ) -> tuple[Tensor, Bool[Tensor, " rows"], Tensor | None]:
        """M_init, whether the crop shows the class of a row, and the height to which M_f is scaled.

        A map of the whole image says how much of a class the crop shows. Scaling by its own
        extremes would forget that and give every tag a full peak, so the peak that the image's
        refined map has on the crop is put back.
        """
        if self._bank is None:
            every = torch.ones_like(batch.owner, dtype=torch.bool)
            return batch.initial, every, batch.maps.flatten(1).amax(1)
        assert frozen.block is not None
        tags = [batch.classes[batch.owner == crop].tolist() for crop in range(len(batch.images))]
        found = block_cams(
            self.encoder, frozen.block, frozen.grid, tags, self._bank, self._cams.gradient
        )
        maps = found.scaled(self._cams.scaling)
        return maps, shown_tags(batch, self._settings, found.probabilities), None
