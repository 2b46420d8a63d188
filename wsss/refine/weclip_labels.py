"""WeCLIP's teacher: pseudo labels of training crops, made while the head trains (spec 2.3)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from wsss.cams.affinity import spread_as_configured
from wsss.cams.grad_cam import block_cams
from wsss.cams.maps import scale_maps
from wsss.clip.encoder import ClipEncoder
from wsss.clip.text import TextBank
from wsss.config.model import CamsConfig, Config
from wsss.config.refine import WeClipConfig
from wsss.labels.ignore import IGNORED
from wsss.labels.online import Unsure, online_labels
from wsss.refine.frozen import Frozen, run_frozen
from wsss.refine.rfm import block_distances, keep_near, trusted_affinity
from wsss.refine.stream import CropBatch


def unsure_band(settings: WeClipConfig) -> Unsure | None:
    """The configured ignore band; None where every pixel has a label."""
    return Unsure(*settings.unsure_band) if settings.unsure == "ignored" else None


@torch.no_grad()
def refined_cams(
    attention: Float[Tensor, "batch candidates patches patches"],
    maps: Float[Tensor, "rows height width"],
    owner: Int[Tensor, " rows"],
    cams: CamsConfig,
    settings: WeClipConfig,
    affinity: Float[Tensor, "batch patches patches"] | None = None,
) -> Float[Tensor, "rows height width"]:
    """Spread M_init of a batch.

    Args:
        attention: A_s of the candidate blocks.
        maps: M_init, in 0..1.
        owner: the image of each row, in ascending order.
        cams: the affinity's settings.
        settings: the distance of the refinement module.
        affinity: A_f; None: phase 1, the plain mean of the candidates.

    Returns:
        M_f, every map scaled to 0..1 by its own extremes.
    """
    if affinity is None:
        weights = attention.mean(1)
    else:
        assert settings.rfm_distance != "auto"
        kept = keep_near(block_distances(affinity, attention, settings.rfm_distance))
        weights = trusted_affinity(affinity, attention, kept)
    return spread_as_configured(weights, maps, owner, cams)


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
        self._cams, self._settings = config.cams, config.refine.weclip
        self._unsure = unsure_band(self._settings)

    def look(self, batch: CropBatch, *, rfm: bool) -> Frozen:
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
        return run_frozen(
            self.encoder, batch.images, attention_blocks=blocks, last_block=self._bank is not None
        )

    @torch.no_grad()
    def labels(
        self,
        batch: CropBatch,
        frozen: Frozen,
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
            args = (frozen.attention, maps, batch.owner, self._cams, self._settings, affinity)
            maps = refined_cams(*args)
        if peak is not None:
            maps = maps * peak[:, None, None]
        size = (batch.images.shape[-2], batch.images.shape[-1])
        padding = batch.valid if self._settings.padding == "ignored" else None
        labels = online_labels(
            batch.images, maps, batch.owner, batch.classes, size, valid=padding, unsure=self._unsure
        )
        # Neither foreground nor background is learned where a tag that is not there would be.
        absent = torch.zeros(len(labels), IGNORED + 1, dtype=torch.bool, device=labels.device)
        absent[batch.owner[~shown], 1 + batch.classes[~shown]] = True
        # (B, 256) indexed by (B, H W) -> (B, H, W)
        hidden = absent.gather(1, labels.flatten(1).long()).view(labels.shape)
        labels = labels.masked_fill(hidden, IGNORED)
        # Nobody says what is on an image without tags, so nothing is learned from it.
        known = torch.bincount(batch.owner, minlength=len(labels)) > 0
        return labels.masked_fill(~known[:, None, None], IGNORED)

    def _initial(
        self, batch: CropBatch, frozen: Frozen
    ) -> tuple[Tensor, Bool[Tensor, " rows"], Tensor | None]:
        """M_init, whether the crop shows the class of a row, and the height to which M_f is scaled.

        A map of the whole image says how much of a class the crop shows. Scaling by its own
        extremes would forget that and give every tag a full peak, so the peak that the image's
        refined map has on the crop is put back.
        """
        every = torch.ones_like(batch.owner, dtype=torch.bool)
        if self._bank is None:
            return batch.initial, every, batch.maps.flatten(1).amax(1)
        assert frozen.block is not None
        assert self._cams.gradient != "auto"
        assert self._cams.scaling != "auto"
        tags = [batch.classes[batch.owner == crop].tolist() for crop in range(len(batch.images))]
        found = block_cams(
            self.encoder, frozen.block, frozen.grid, tags, self._bank, self._cams.gradient
        )
        maps = scale_maps(found.maps.relu(), self._cams.scaling)
        gate = self._settings.crop_gate
        if self._settings.crop_cams == "gated":
            return maps, ~(found.probabilities < gate * batch.probabilities), None
        if self._settings.crop_cams == "located":
            return maps, batch.maps.flatten(1).amax(1) >= gate, None
        return maps, every, None
