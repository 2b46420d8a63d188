"""Options of WeCLIP."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from wsss.refine.blocks.options import GradCamOptions


class WeClipOptions(GradCamOptions):
    """WeCLIP: frozen features of all blocks, fusion, transformer decoder, refinement module."""

    title: ClassVar[str] = "WeCLIP"

    rfm_start: int = Field(
        1000,
        ge=0,
        description=(
            "Training steps before the refinement module contributes to the pseudo labels "
            "(published: VOC 15000, COCO 40000). The released counter also counts validation "
            "images, so VOC's number is 9144 in effect."
        ),
    )
