"""The sections on WeCLIP and ExCEL, which share a head."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from wsss.config.base import Section, Share, variant_field


class HeadConfig(Section):
    """What WeCLIP and ExCEL share: fusion, decoder, affinity loss, labels of crops."""

    width: PositiveInt = Field(64, description="Channels of the fused features (published: 256).")
    depth: PositiveInt = Field(3, description="Blocks of the decoder.")
    heads: PositiveInt = Field(8, description="Heads of a decoder block; they divide the width.")
    dropout: Share = Field(0.1, description="Share of fused channels zeroed in training.")
    affinity_weight: float = Field(0.1, ge=0, description="Weight of the affinity loss.")
    affinity_radius: PositiveInt = Field(
        8, description="Affinity loss: patches at most this many rows and columns apart."
    )
    crop_gate: Share = Field(0.5, description="See crop_cams: gated and located.")
    padding: Literal["auto", "labelled", "ignored"] = variant_field(
        published="labelled",
        corrected="ignored",
        description="Whether the padding of a crop that reaches over the image is learned from.",
    )
    unsure: Literal["auto", "labelled", "ignored"] = variant_field(
        published="labelled",
        corrected="ignored",
        description="Whether pixels with a largest class score in unsure_band are learned from.",
    )
    unsure_band: tuple[Share, Share] = Field(
        (0.4, 0.6),
        description="Class scores, after pixel-adaptive refinement, that are unsure.",
    )


class WeClipConfig(HeadConfig):
    """WeCLIP: frozen features of all blocks, fusion, transformer decoder, refinement module."""

    affinity: Literal["auto", "raw", "cosine"] = variant_field(
        published="raw",
        corrected="cosine",
        description=(
            "Learned affinity, a sigmoid of dot products of fused features: raw saturates early, "
            "cosine divides by their lengths and a temperature."
        ),
    )
    temperature: float = Field(0.1, gt=0, description="Temperature of affinity: cosine.")
    rfm_start: int = Field(
        200,
        ge=0,
        description=(
            "Training steps before the refinement module takes part in the pseudo labels (named "
            "15000 for VOC, 40000 for COCO; as released validation counts, so 9144 for VOC)."
        ),
    )
    rfm_blocks: PositiveInt = Field(
        6, description="Last blocks among which the refinement module chooses (VOC 6, COCO 10)."
    )
    rfm_distance: Literal["auto", "absolute", "signed"] = variant_field(
        published="signed",
        corrected="absolute",
        description=(
            "Distance of a block's attention from the learned affinity: signed sums cancel, so "
            "that the affinity has no say in the choice."
        ),
    )
    crop_cams: Literal["auto", "crop", "gated", "located", "image"] = variant_field(
        published="crop",
        corrected="located",
        description=(
            "CAMs of a training crop. crop: Grad-CAM of the crop for every tag of the image, "
            "whether the crop shows it or not; gated: pixels of a tag whose probability on the "
            "crop is below crop_gate of that on the image are not learned from; located: those of "
            "a tag of which the image's CAM nowhere on the crop reaches crop_gate; image: the "
            "image's CAM, cut."
        ),
    )


class ExcelConfig(HeadConfig):
    """ExCEL: frozen features, fusion, decoder, and CAMs calibrated by what they learn (LVC).

    The patch-text CAM itself is set in ``cams.patch_text``, whatever ``cams.source`` is.
    """

    features: Literal["auto", "aliased", "clean"] = variant_field(
        published="aliased",
        corrected="clean",
        description=(
            "What is fused. clean: the output of every block; aliased: an in-place slip puts the "
            "calibrated stream in place of the block before the calibrated ones, and the state "
            "before the next block's MLP in place of the calibrated ones but the last."
        ),
    )
    relation_scale: float = Field(
        3.0, gt=0, description="Factor of the centred cosines between fused features."
    )
    relation_mean: Literal["auto", "batch", "image"] = variant_field(
        published="batch",
        corrected="image",
        description=(
            "Mean that is taken off those cosines: of the batch, so that an image depends on its "
            "neighbours, or of each image."
        ),
    )
    relation_dropout: Literal["auto", "on", "off"] = variant_field(
        published="on",
        corrected="off",
        description=(
            "Whether the relation that calibrates the CAM is made of features with dropout while "
            "training."
        ),
    )
    lvc_start: int = Field(
        200,
        ge=0,
        description=(
            "Training steps with the static CAM, before the learned relation calibrates it and "
            "its affinity (published: VOC 14000, COCO 30000)."
        ),
    )
    lvc_blocks: PositiveInt = Field(
        6, description="Last blocks among which the affinity of the dynamic CAM chooses."
    )
    block_distance: Literal["auto", "absolute", "signed"] = variant_field(
        published="signed",
        corrected="absolute",
        description=(
            "Distance of a block's attention from the learned affinity: signed sums cancel, so "
            "that the affinity has no say in the choice."
        ),
    )
    own_labels_start: int | None = Field(
        None,
        ge=0,
        description=(
            "Training step from which the affinity loss takes its labels from the decoder's own "
            "prediction; null = never (published: VOC 24000, COCO never)."
        ),
    )
    crop_cams: Literal["auto", "crop", "gated", "located", "image"] = variant_field(
        published="crop",
        corrected="located",
        description=(
            "CAMs of a training crop. crop: for every tag of the image, whether the crop shows it "
            "or not; gated: pixels of a tag whose probability on the crop is below crop_gate of "
            "that on the image are not learned from; located: those of a tag of which the image's "
            "CAM nowhere on the crop reaches crop_gate; image: before lvc_start the image's CAM, "
            "cut, and from then on as located."
        ),
    )
