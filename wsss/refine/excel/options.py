"""Options of ExCEL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from wsss.config.base import block_count, variant_field
from wsss.config.method import Chain, EncoderNeed
from wsss.refine.blocks.options import HeadOptions


class ExcelOptions(HeadOptions):
    """ExCEL: frozen features, fusion, decoder, and CAMs calibrated by learned relations (LVC).

    The options of the patch-text CAM are in ``cams.patch_text``, whatever ``cams.source`` is.
    """

    title: ClassVar[str] = "ExCEL"
    released: ClassVar[bool] = True

    features: Literal["aliased", "clean"] = variant_field(
        published="aliased",
        corrected="clean",
        description=(
            "Features that are fused. clean: the output of every block. aliased: as an in-place "
            "bug leaves them. The calibrated stream replaces the block before the calibrated "
            "ones. The state before the next block's MLP replaces these, except the last."
        ),
    )
    relation_scale: float = Field(
        3.0, gt=0, description="Factor of the centred cosines between fused features."
    )
    relation_mean: Literal["batch", "image"] = variant_field(
        published="batch",
        corrected="image",
        description=(
            "Mean that is subtracted from those cosines: of the batch, so that an image depends on "
            "the others, or of each image."
        ),
    )
    relation_dropout: Literal["on", "off"] = variant_field(
        published="on",
        corrected="off",
        description=(
            "Whether the features behind the relation that calibrates the CAM have dropout in "
            "training."
        ),
    )
    par_image: Literal["truncated", "normalized"] = variant_field(
        published="truncated",
        corrected="normalized",
        description=(
            "What the pixel-adaptive refinement of crop labels sees: the crop in 8 bits, cut off "
            "instead of rounded, or the normalised crop."
        ),
    )
    mirror_scaling: Literal["guarded_more", "exact"] = variant_field(
        published="guarded_more",
        corrected="exact",
        description=(
            "infer.scores cam takes the maximum of the CAMs of an image and of its mirror image. "
            "guarded_more: scale it by its range plus 1e-5. exact: by its range."
        ),
    )
    lvc_start: int = Field(
        200,
        ge=0,
        description=(
            "Training steps with the static CAM, before the learned relation calibrates the CAM "
            "and its affinity (published: VOC 14000, COCO 30000)."
        ),
    )
    lvc_blocks: PositiveInt | None = Field(
        None,
        description=(
            "The affinity of the dynamic CAM selects among this many last blocks. null = half of "
            "the encoder's depth (6 of 12, 12 of 24)."
        ),
    )
    self_training_start: int | None = Field(
        None,
        ge=0,
        description=(
            "Training step from which the labels of the affinity loss are the decoder's "
            "prediction. null = never (published: VOC 24000, COCO never)."
        ),
    )

    @property
    def encoder_blocks(self) -> Mapping[str, int | None]:
        """Those that the affinity of the dynamic CAM selects among."""
        return {"lvc_blocks": self.lvc_blocks}

    def lvc_blocks_of(self, depth: int) -> int:
        """`lvc_blocks` of an encoder of so many blocks."""
        return block_count(self.lvc_blocks, 1 / 2, depth)

    @property
    def encoder_needs(self) -> frozenset[EncoderNeed]:
        """The patch-text CAM, and the calibration of its attention."""
        return frozenset({"patches_and_texts", "linear_attention"})

    def cross_checks(self, config: Chain) -> list[str]:
        """What the calibrated CAM needs."""
        errors = super().cross_checks(config)
        if config.cams.source == "external" and self.crop_visibility != "image":
            errors.append(
                f"crop_visibility {self.crop_visibility} computes patch-text CAMs of crops, but "
                "cams.source is external; set crop_visibility to image"
            )
        if config.cams.patch_text.relation == "none":
            errors.append("cams.patch_text.relation is none, but excel calibrates it")
        return errors
