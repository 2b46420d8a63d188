"""Options of WeCLIP."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from wsss.config.base import block_count, variant_field
from wsss.config.method import Chain
from wsss.refine.blocks.options import HeadOptions


class WeClipOptions(HeadOptions):
    """WeCLIP: frozen features of all blocks, fusion, transformer decoder, refinement module."""

    title: ClassVar[str] = "WeCLIP"

    affinity: Literal["raw", "cosine"] = variant_field(
        published="raw",
        corrected="cosine",
        description=(
            "Learned affinity: sigmoid of dot products of fused features. raw saturates early. "
            "cosine divides by their norms and a temperature."
        ),
    )
    temperature: float = Field(0.1, gt=0, description="Temperature of affinity: cosine.")
    rfm_start: int = Field(
        1000,
        ge=0,
        description=(
            "Training steps before the refinement module contributes to the pseudo labels "
            "(published: VOC 15000, COCO 40000). The released counter also counts validation "
            "images, so VOC's number is 9144 in effect."
        ),
    )
    rfm_blocks: PositiveInt | None = Field(
        None,
        description=(
            "The refinement module selects among this many last blocks (published: VOC 6, COCO "
            "10). null = half of the encoder's depth (6 of 12, 12 of 24)."
        ),
    )

    def rfm_blocks_of(self, depth: int) -> int:
        """`rfm_blocks` of an encoder of so many blocks."""
        return block_count(self.rfm_blocks, 1 / 2, depth)

    def cross_checks(self, config: Chain) -> list[str]:
        """What the refinement module can start from."""
        errors = super().cross_checks(config)
        if config.infer.scores == "static_cam":
            errors.append("infer.scores: static_cam is for excel; set cam or decoder")
        if config.cams.source != "grad_cam" and self.crop_visibility != "image":
            errors.append(
                f"crop_visibility {self.crop_visibility} computes Grad-CAMs of crops, but "
                f"cams.source is {config.cams.source}; set crop_visibility to image"
            )
        return errors
