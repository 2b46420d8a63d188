"""Options that WeCLIP, ExCEL and WeCLIP+ share: decoder, affinity, labels of crops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from wsss.config.base import Share, block_count, variant_field
from wsss.config.method import Chain, MethodOptions


class HeadOptions(MethodOptions):
    """Fusion of frozen features, a transformer decoder, and pseudo labels made online."""

    published_normalization: ClassVar[Literal["clip", "imagenet"]] = "imagenet"
    refines_cams: ClassVar[bool] = True

    width: PositiveInt = Field(256, description="Channels of the fused features.")
    depth: PositiveInt = Field(3, description="Blocks of the decoder.")
    heads: PositiveInt = Field(8, description="Heads of a decoder block, a divisor of the width.")
    dropout: Share = Field(0.1, description="Share of fused channels zeroed in training.")
    affinity_weight: float = Field(0.1, ge=0, description="Weight of the affinity loss.")
    affinity_radius: PositiveInt = Field(
        8, description="Affinity loss: largest distance of two patches, in rows and in columns."
    )
    padding: Literal["labelled", "ignored"] = variant_field(
        published="labelled",
        corrected="ignored",
        description="Whether the padding of a crop that extends beyond the image has a label.",
    )
    ignore_band: tuple[Share, Share] | None = variant_field(
        published=None,
        corrected=(0.4, 0.6),
        description=(
            "Pixels whose largest class score, after pixel-adaptive refinement, lies in this band "
            "are ignored. null = none."
        ),
    )
    block_distance: Literal["absolute", "signed"] = variant_field(
        published="signed",
        corrected="absolute",
        description=(
            "Distance between a block's attention and the learned affinity, by which blocks are "
            "selected. signed: differences of both signs cancel, so that the affinity has no "
            "influence on the choice."
        ),
    )
    crop_visibility: Literal["crop", "gated", "located", "image"] = variant_field(
        published="crop",
        corrected="located",
        description=(
            "CAMs of a training crop, and which tags the crop shows. crop: CAMs of the crop for "
            "every tag of the image. gated: the same, but pixels of a tag are ignored if its "
            "probability on the crop is below visibility_threshold times that on the image. "
            "located: pixels of a tag are ignored if the image's CAM stays below "
            "visibility_threshold everywhere on the crop. image: the image's CAM, cut out (excel: "
            "until lvc_start, then as located)."
        ),
    )
    visibility_threshold: Share = Field(0.5, description="Threshold of gated and located.")

    def cross_checks(self, config: Chain) -> list[str]:
        """The number of heads and the ignore band."""
        errors = []
        if self.width % self.heads:
            errors.append("heads must divide width")
        if self.ignore_band and not self.ignore_band[0] < self.ignore_band[1]:
            errors.append("ignore_band must rise, e.g. [0.4, 0.6]")
        return errors


class GradCamOptions(HeadOptions):
    """Grad-CAMs of crops as teachers, refined with an affinity of learned features."""

    affinity: Literal["raw", "cosine"] = variant_field(
        published="raw",
        corrected="cosine",
        description=(
            "Learned affinity: sigmoid of dot products of fused features. raw saturates early. "
            "cosine divides by their norms and a temperature."
        ),
    )
    temperature: float = Field(0.1, gt=0, description="Temperature of affinity: cosine.")
    rfm_blocks: PositiveInt | None = Field(
        None,
        description=(
            "The refinement module selects among this many last blocks (published: VOC 6, COCO "
            "10, with weclip_plus 8). null = half of the encoder's depth (6 of 12, 12 of 24)."
        ),
    )

    @property
    def encoder_blocks(self) -> Mapping[str, int | None]:
        """Those that the refinement module selects among."""
        return {"rfm_blocks": self.rfm_blocks}

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
