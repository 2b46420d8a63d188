"""The section on wrong tags, which measures what a chain loses by them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from wsss.config.base import Section, Share, Split


class TagNoiseConfig(Section):
    """Tags that are missing, wrong or predicted, on purpose: what does a chain lose by them?

    As shipped the tags stay as they are given.
    """

    source: Literal["given", "clip"] = Field(
        "given",
        description=(
            "Tags to start from. given: those of the data set; clip: the classes that CLIP sees in "
            "the photo."
        ),
    )
    threshold: Share = Field(
        0.1,
        description=(
            "clip: a class is a tag from this probability on, among all classes and background "
            "words; the most probable class always is one."
        ),
    )
    dropped: Share = Field(0.0, description="Probability with which each tag is removed.")
    untagged: Literal["keep_one", "leave_out"] = Field(
        "keep_one",
        description=(
            "A training image that would lose all its tags. keep_one: keeps one of them, so that "
            "all shares are scored on the same images; leave_out: is left out."
        ),
    )
    added: Share = Field(
        0.0, description="Probability with which an image gets one class that it does not show."
    )
    splits: list[Split] = Field(
        ["train"],
        description=(
            "Splits whose tags change. Without val, scores of val show what the training lost."
        ),
    )
    seed: int = Field(0, ge=0, description="Seed of what is removed and added.")

    @property
    def enabled(self) -> bool:
        """Whether any tag may change."""
        draws = self.dropped > 0 or self.added > 0
        return bool(self.splits) and (draws or self.source == "clip")

    def effective(self) -> dict[str, Any]:
        """Without what plays no part; empty where the tags stay as they are given."""
        if not self.enabled:
            return {}
        unused = {
            "threshold": self.source == "given",
            "untagged": self.dropped == 0,
            "seed": self.dropped == 0 and self.added == 0,
        }
        return self.model_dump(mode="json", exclude={name for name, is_ in unused.items() if is_})
