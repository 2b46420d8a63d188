"""The sections on scores and pictures."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, PositiveInt

from wsss.config.base import Section

ClassMean = Literal["union", "truth"]
"""The labels, background included, that a mean IoU runs over."""
CLASS_MEANS: dict[ClassMean, str] = {
    "union": "in truth or prediction (union > 0)",
    "truth": "in the truth",
}
"""The rules in words, after "labels"."""


def report_class_problem(name: str, labels: Sequence[str]) -> str:
    """What is wrong with one of ``score.report_classes``; empty if nothing is.

    Args:
        labels: of the data set, background included.
    """
    if name in labels:
        return ""
    near = difflib.get_close_matches(name, labels, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"the labels are {', '.join(labels)}"
    return f"score.report_classes: {name!r} is no label of the data set; {hint}"


class ScoreConfig(Section):
    """Scores. Only this stage opens pixel labels."""

    cam_thresholds: Literal["fixed", "fixed+best"] = Field(
        "fixed+best",
        description=(
            "Rows of the CAMs. fixed: with the configured background rule. fixed+best: also with "
            "the threshold that is best on the same ground truth."
        ),
    )
    report_classes: list[str] = Field(
        default_factory=list, description="Extra column: mean IoU over these classes only."
    )
    class_mean: ClassMean = Field(
        "union",
        description=(
            "Labels that a mean IoU runs over. union: all that occur in the truth or in the "
            "prediction. truth: those that occur in the truth. They differ only where a label is "
            "predicted that no truth has."
        ),
    )
    boundary_ratio: float = Field(
        0.02,
        ge=0,
        lt=1,
        description=(
            "Width of the regions behind the boundary IoU, as a share of the image's diagonal. "
            "0 = no boundary IoU."
        ),
    )
    resamples: int = Field(
        1000,
        ge=0,
        description=(
            "Bootstrap samples of the images behind the 95 % interval of each mIoU. 0 = no "
            "interval."
        ),
    )


class PicturesConfig(Section):
    """Pictures."""

    contact_images: PositiveInt = Field(12, description="Images on a contact sheet.")
    gallery_images: PositiveInt = Field(
        2000,
        description="Most images per split on the result page. If there are more, it shows "
        "some, spread over the classes.",
    )
    folder: str = Field(
        "",
        description=(
            "data.kind folder: where masks, overlays, class table, review table and gallery of "
            "the photos go. Empty: results/<name>/gallery."
        ),
    )
