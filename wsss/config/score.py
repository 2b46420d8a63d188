"""The sections on scores and pictures."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from wsss.config.base import Section


class ScoreConfig(Section):
    """Scores. Only this stage opens pixel labels."""

    cam_thresholds: Literal["fixed", "fixed+best"] = Field(
        "fixed+best",
        description=(
            "Rows of the CAMs. fixed: with the configured background rule; fixed+best: also with "
            "the threshold that is best on the same ground truth."
        ),
    )
    report_classes: list[str] = Field(
        default_factory=list, description="Extra column: mean IoU over these classes only."
    )
    resamples: int = Field(
        1000,
        ge=0,
        description=(
            "Bootstrap samples of the images behind the 95 % interval of each mIoU; 0 = no "
            "interval."
        ),
    )


class PicturesConfig(Section):
    """Pictures."""

    contact_images: PositiveInt = Field(12, description="Images on a contact sheet.")
