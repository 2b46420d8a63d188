"""The sections on scores and pictures."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from wsss.config.base import Section


class ScoreConfig(Section):
    """What is measured. This stage alone opens pixel labels."""

    cam_thresholds: Literal["fixed", "fixed+best"] = Field(
        "fixed+best",
        description=(
            "CAM rows at the configured background rule, and, apart, at the threshold that is best "
            "on the same truth."
        ),
    )
    report_classes: list[str] = Field(
        default_factory=list, description="Extra column: mean IoU over these classes only."
    )
    resamples: int = Field(
        1000,
        ge=0,
        description=(
            "Draws of the images, with replacement, behind the 95 % interval of each mIoU; 0 = no "
            "interval."
        ),
    )


class PicturesConfig(Section):
    """What is drawn."""

    contact_images: PositiveInt = Field(12, description="Images on a contact sheet.")
