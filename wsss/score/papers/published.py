"""Published numbers: their values, where they stand, and the protocol behind them."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from wsss.config.base import Section
from wsss.config.data import COCO_RULES, CocoRule
from wsss.config.score import CLASS_MEANS, ClassMean
from wsss.score.product import Protocol

_SUPERVISION = re.compile(r"F|I(\+(B|S|T|CLIP|SAM|DINO|SD))*")
SUPERVISION_NOTE = (
    "Supervision: F pixel labels of every image; I tags of images; + B boxes, S saliency maps, T "
    "texts of a language model; + CLIP, SAM, DINO, SD (Stable Diffusion) models trained on other "
    "data. Rows of different supervision do not compare."
)
TRUTH_NOTE = (
    "Truth: how COCO's annotations became the label maps that a row is scored with (?: not known). "
    f"{'; '.join(f'{name}: {rule}' for name, rule in COCO_RULES.items())}. Rows of "
    "different truths do not compare."
)
UNKNOWN_NOTE = "?: the source does not say whether the number follows the protocol of its column."


def _is_supervision(value: str) -> str:
    if value and not _SUPERVISION.fullmatch(value):
        raise ValueError(f"{value!r} is none; expected F, or I and parts such as +S, +CLIP, +SAM")
    return value


Supervision = Annotated[str, AfterValidator(_is_supervision)]


class ClassValues(Section):
    """The IoU of each label, and what the source says their mean is."""

    mean: float = Field(ge=0, le=100)
    classes: list[Annotated[float, Field(ge=0, le=100)]] = Field(
        description="In the order of the table's classes."
    )


class Published(Section):
    """Numbers of one source, all of one protocol."""

    values: dict[str, float | ClassValues] = Field(
        min_length=1, description="By column, in the unit of the table (percent)."
    )
    source: str = Field(
        min_length=1,
        description="Paper (authors, venue and year, arXiv id), README, issue with its number.",
    )
    scales: Literal["single", "multi"] | None = Field(
        None, description="Scales of the prediction, multi with mirroring; null: not known."
    )
    crf: bool | None = Field(None, description="Whether after a dense CRF; null: not known.")
    truth: CocoRule | None = Field(
        None, description="Of COCO: the rule behind the truth, as data.coco_truth; null: not known."
    )
    images: str = Field("", description="Images that were scored, where the column has a choice.")
    class_mean: ClassMean | None = Field(
        None,
        description=(
            "Labels that the mean IoU runs over: truth, or union of truth and prediction; null: "
            "not known."
        ),
    )
    note: str = Field("", description="What else is known, e.g. numbers of others who ran it.")

    @property
    def protocol(self) -> str:
        """Scales, CRF, truth, images and class mean in words; empty where nothing is known."""
        parts = [
            {"single": "one scale", "multi": "scales + flip", None: ""}[self.scales],
            {True: "CRF", False: "no CRF", None: ""}[self.crf],
            f"truth {self.truth}" if self.truth else "",
            self.images,
            self.class_mean and f"mean over labels {CLASS_MEANS[self.class_mean]}",
        ]
        return ", ".join(filter(None, parts))

    @property
    def text(self) -> str:
        """Source, protocol and note as one sentence."""
        parts = [self.source.rstrip("."), self.protocol, self.note.rstrip(".")]
        return "; ".join(filter(None, parts)) + "."

    def follows(self, protocol: Protocol) -> bool | None:
        """Whether the numbers are those of a column's protocol; None: not known in full."""
        answers = (
            None if self.scales is None else self.scales == protocol.removesuffix("_crf"),
            None if self.crf is None else self.crf == protocol.endswith("_crf"),
        )
        return False if False in answers else (None if None in answers else True)
