"""How far tags that differ on purpose (``tag_noise``) agree with the given ones."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class TagQuality(BaseModel):
    """Tags that a run used, compared with the given ones; over the splits that were changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    noise: dict[str, Any]
    """The section ``tag_noise``, as far as it plays a part."""
    images: int
    """That have given tags, or were given others."""
    left_out: int
    """Of these: without a tag, and therefore not trained on."""
    precision: float | None
    """Share of the tags used that are given ones; None: no tag is used."""
    recall: float | None
    """Share of the given tags that are used; None: none is given."""

    @property
    def cause(self) -> str:
        """``CLIP's tags, 20 % removed, 10 % of the images with a wrong one``."""
        parts = ["CLIP's tags" if self.noise["source"] == "clip" else "given tags"]
        if dropped := self.noise["dropped"]:
            parts.append(f"{100 * dropped:g} % removed")
        if added := self.noise["added"]:
            parts.append(f"a wrong one added to {100 * added:g} % of the images")
        return ", ".join(parts)

    @property
    def text(self) -> str:
        """One sentence for people."""
        splits = " and ".join(self.noise["splits"])
        left_out = f"; {self.left_out} images left out, without a tag" if self.left_out else ""
        precision, recall = (
            "none" if share is None else f"{100 * share:.1f} %"
            for share in (self.precision, self.recall)
        )
        return (
            f"TAGS CHANGED ON PURPOSE in {splits}: {self.cause}; against the given tags precision "
            f"{precision}, recall {recall} ({self.images} images{left_out})."
        )
