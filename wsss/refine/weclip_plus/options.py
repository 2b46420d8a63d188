"""Options of WeCLIP+."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from wsss.config.base import Share, variant_field
from wsss.refine.blocks.options import GradCamOptions


class WeClipPlusOptions(GradCamOptions):
    """WeCLIP+: a head for each of two frozen encoders, CLIP and DINOv2, and one decoder of both."""

    title: ClassVar[str] = "WeCLIP+"
    encoders: ClassVar[tuple[str, ...]] = ("dino",)

    cam_block: Literal["last", "skipped"] = variant_field(
        published="skipped",
        corrected="last",
        description=(
            "What enters CLIP's last block for Grad-CAMs of crops and for its attention. last: the "
            "output of the block before it. skipped: of the block before that, as released for VOC "
            "(COCO: last)."
        ),
    )
    affinity_features: Literal["both", "clip"] = Field(
        "both", description="Features behind the learned affinity: of both heads, or of CLIP's."
    )
    source_gate: Literal["network", "none"] = Field(
        "network",
        description=(
            "network: a patch counts as a source of a class as far as the network itself gives it "
            "that class. none: all patches do."
        ),
    )
    cross_weight: float = Field(
        0.1, ge=0, description="Weight of the losses by which each head teaches the other."
    )
    dice_weight: float = Field(1.0, ge=0, description="Weight of the dice loss.")
    dice_labels: Literal["all", "present"] = variant_field(
        published="all",
        corrected="present",
        description=(
            "Labels over which the dice loss is averaged: all, so that it stays near 1, or those "
            "that the batch has."
        ),
    )
    self_training_start: int | None = Field(
        1200,
        ge=0,
        description=(
            "Training step from which confident pixels are labelled by the network itself. null = "
            "never (published: VOC 18001, COCO 40001)."
        ),
    )
    self_training_confidence: Share = Field(
        0.75, description="Probability above which the network labels a pixel."
    )
    own_labels_among: Literal["all", "tags"] = variant_field(
        published="all",
        corrected="tags",
        description=(
            "Labels that the network may give: all, or the background and the image's tags."
        ),
    )
