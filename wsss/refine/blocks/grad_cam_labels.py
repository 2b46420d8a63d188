"""Labels of crops from their Grad-CAMs, refined with a learned affinity (WeCLIP, WeCLIP+)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from wsss.cams.grad_cam import GradCam, block_cams
from wsss.cams.patch_affinity import check_compares_texts, pair_factor
from wsss.clip.text.embeddings import TextBank, text_bank
from wsss.refine.base import Setup
from wsss.refine.blocks.frozen import EncoderFeatures
from wsss.refine.blocks.fusion import feature_affinity
from wsss.refine.blocks.model import HeadRefiner, Trained
from wsss.refine.blocks.options import GradCamOptions
from wsss.refine.blocks.pseudo_labels import crop_labels, shown_tags
from wsss.refine.blocks.refinement import refined_cams
from wsss.refine.training.crops import CropBatch

Options = TypeVar("Options", bound=GradCamOptions)


class GradCamRefiner(HeadRefiner[Options, Trained]):
    """A refiner that Grad-CAMs of its crops teach; see `HeadRefiner`."""

    def __init__(self, setup: Setup[Options], head: Trained) -> None:
        super().__init__(setup, head)
        if setup.cams.affinity.uses_texts:
            check_compares_texts(self.encoder)
        self._crop_cams = self.options.crop_visibility != "image"

    def affinity(
        self, fused: Float[Tensor, "batch width rows columns"]
    ) -> Float[Tensor, "batch patches patches"]:
        """A_f between patches, in 0..1 (eq. 6 of docs/methods/weclip.md)."""
        cosine = self.options.affinity == "cosine"
        return feature_affinity(fused, self.options.temperature if cosine else None)

    @torch.no_grad()
    def labels_from_cams(
        self,
        batch: CropBatch,
        features: EncoderFeatures,
        affinity: Float[Tensor, "batch patches patches"] | None,
        sources: Float[Tensor, "rows height width"] | None = None,
    ) -> UInt8[Tensor, "batch side side"]:
        """Y: 0 background, class + 1, 255 where nothing is to be learned.

        Eq. 7-16 of docs/methods/weclip.md.

        Args:
            features: of the encoder, as far as `initial_cams` and `refined` need them.
            affinity: A_f where the refinement module takes part, else None.
            sources: see `wsss.cams.affinity.propagate_maps`.
        """
        maps, shown, peak = self.initial_cams(batch, features)
        maps = self.refined(features, maps, batch.image_index, affinity, sources)
        if peak is not None:
            maps = maps * peak[:, None, None]
        return crop_labels(batch, maps, shown, self.options)

    def initial_cams(
        self, batch: CropBatch, features: EncoderFeatures
    ) -> tuple[
        Float[Tensor, "rows height width"], Bool[Tensor, " rows"], Float[Tensor, " rows"] | None
    ]:
        """M_init, whether a row's class is shown, and the height to which M_f is scaled.

        Eq. 7 of docs/methods/weclip.md. A map of the whole image tells how much of a class the
        crop shows. Scaling by its own extremes would lose that and give every tag a full peak, so
        the peak that the image's refined map has on the crop is restored.
        """
        if not self._crop_cams:
            every = torch.ones_like(batch.probabilities, dtype=torch.bool)
            return batch.initial, every, batch.maps.flatten(1).amax(1)
        grad_cams = self.grad_cams(features, batch.tags)
        maps = grad_cams.scaled(self.setup.cams.scaling)
        return maps, shown_tags(batch, self.options, grad_cams.probabilities), None

    def grad_cams(self, features: EncoderFeatures, tags: Sequence[Sequence[int]]) -> GradCam:
        """Grad-CAMs of images.

        Args:
            features: of the encoder, with its last block.
            tags: classes of each image, 0-based.
        """
        assert features.block is not None
        words = (self.bank, self.setup.cams.gradient)
        return block_cams(self.encoder, features.block, features.grid, tags, *words)

    def refined(
        self,
        features: EncoderFeatures,
        maps: Float[Tensor, "rows height width"],
        image_index: Tensor,
        affinity: Float[Tensor, "batch patches patches"] | None,
        sources: Float[Tensor, "rows height width"] | None = None,
    ) -> Float[Tensor, "rows height width"]:
        """M_f: maps spread between patches (eq. 8-12 of docs/methods/weclip.md).

        They are unchanged where nothing spreads them.
        """
        cams, factor = self.setup.cams, None
        if features.compared is not None:
            bank = self.bank if cams.affinity.uses_texts else None
            factor = pair_factor(features.compared, bank, cams.affinity)
        if features.attention is None and factor is None:
            return maps
        args = (features.attention, maps, image_index, cams, affinity)
        return refined_cams(*args, self.options.block_distance, sources, factor)

    @cached_property
    def bank(self) -> TextBank:
        """Text features of classes and backgrounds, for Grad-CAMs and affinities of the crops."""
        setup = self.setup
        words = (setup.classes.prompts, setup.classes.backgrounds, setup.template)
        bank = text_bank(setup.encoder_input.clip, *words, cache_dir=setup.embeddings)
        return bank.to(self.encoder.device)
