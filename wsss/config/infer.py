"""The section on prediction with the trained refiner."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, PositiveInt

from wsss.config.base import Scales, Section, chain_field, variant_field
from wsss.config.labels import CrfLabels, crf_labels_field


def window_problem(key: str, window: int | None, patch: tuple[int, int], smallest: int = 1) -> str:
    """What is wrong with a sliding window, and what fits; empty where it fits.

    Args:
        key: of the configuration, for the message.
        window: side, pixels; None: no windows.
        patch: height and width of the network's patches, pixels.
        smallest: least side, pixels.
    """
    unit = math.lcm(*patch)
    if window is None or (window >= smallest and window % unit == 0):
        return ""
    if unit == 1:
        return f"{key} is {window}; expected at least {smallest} pixels"
    near = max(-(-smallest // unit) * unit, window - window % unit)
    least = f", at least {smallest}" if smallest > unit else ""
    return (
        f"{key} is {window}; expected a multiple of the network's patch ({patch[0]} x {patch[1]} "
        f"pixels){least}, e.g. {near}"
    )


class InferConfig(Section):
    """Prediction with the trained refiner."""

    scores: Literal["decoder", "cam", "static_cam"] = Field(
        "decoder",
        description=(
            "Class scores for the pseudo masks. decoder: the decoder's probabilities of the "
            "image's tags. cam: the CAM after the learned refinement (weclip, excel, weclip_plus). "
            "static_cam: the uncalibrated CAM after the same refinement (excel: the pseudo masks "
            "of its training log)."
        ),
    )
    scales: Scales = Field(
        [1.0, 0.75],
        description=(
            "Scales. Each is also mirrored. weakclip averages probabilities, the others logits."
        ),
    )
    long_side: PositiveInt | None = Field(
        None,
        description=(
            "Scale images to this long side first. null = as clip.long_side. With short_side: the "
            "longest that a long side may become. null = any."
        ),
    )
    short_side: PositiveInt | None = Field(
        None, description="weakclip: scale images to this short side instead."
    )
    window: PositiveInt | None = Field(
        None,
        description=(
            "weakclip: side of the sliding window for larger images, pixels. null = the whole "
            "image at once."
        ),
    )
    stride: PositiveInt | None = Field(
        None, description="weakclip: pixels between windows. null = the window's side."
    )
    grid: Literal["floored", "aligned"] = variant_field(
        published="floored",
        corrected="aligned",
        description=(
            "floored: a remainder of less than a patch is cut off, but the logits are stretched "
            "over the whole image. aligned: the image is resized to whole patches."
        ),
    )
    average: Literal["grid", "image"] = chain_field(
        "grid",
        description=(
            "Where the logits of scales and mirror images are averaged (not weakclip). grid: on "
            "the patch grid of scale 1. image: at the size of the image. auto = image for excel, "
            "else grid, as in their released code. Scores of images with tags are "
            "averaged on the grid, on which they are stored."
        ),
    )
    average_share: float = chain_field(
        1.0,
        gt=0,
        le=1,
        description=(
            "excel: with average image, the share of the image's sides at which logits are "
            "averaged. auto = 1.0, or 0.2 where the variant is published and the data are COCO, as "
            "in the released code of ExCEL."
        ),
    )
    dropout: Literal["on", "off"] = Field(
        "off",
        description=(
            "weclip: on = dropout stays active during prediction, as in the validation that the "
            "released code runs during its training. The released test has it off."
        ),
    )
    mirror_first: bool = chain_field(
        True,
        description=(
            "Whether scale 1 is also mirrored where there are several scales (not weakclip). "
            "auto = true, or false where the variant is published, the CAMs are patch_text and "
            "the data are VOC, as in the released code of ExCEL."
        ),
    )
    crf: bool = Field(
        True,
        description="Also predict with a dense CRF (settings of masks.crf), in separate rows.",
    )
    crf_labels: CrfLabels = crf_labels_field()
