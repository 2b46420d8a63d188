"""What an import of corrected masks took, and what it left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from wsss.data.counted import counted, list_images


@dataclass
class ImportReport:
    """Counts of an import, for people."""

    out: Path
    images: int
    """Of the run."""
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    unknown: list[str] = field(default_factory=list)
    """Names that are no image of the run."""
    empty: list[str] = field(default_factory=list)
    """Images that the source lists without a mask."""
    same_as_run: list[str] = field(default_factory=list)
    """Images whose mask is that of the run; left out."""
    same_as_run_other_stays: list[str] = field(default_factory=list)
    """The same, where the folder has another mask, which stays."""
    same_as_run_before: list[str] = field(default_factory=list)
    """The same, where the folder has that mask already; part of `unchanged`."""

    @property
    def masks(self) -> int:
        """Masks that the source holds of the run's images, without those that are left out."""
        return self.new + self.changed + self.unchanged

    def __str__(self) -> str:
        lines = [
            f"{counted(self.masks, 'mask')} of {counted(self.images, 'image')} in {self.out}: "
            f"{self.new} new, {self.changed} changed, {self.unchanged} as before"
        ]
        if self.empty:
            lines.append(f"left out, since nothing was drawn there: {list_images(self.empty)}")
        if self.unknown:
            lines.append(f"left out, since the run has none so called: {list_images(self.unknown)}")
        if self.same_as_run:
            lines.append(
                f"left out, since the run has the same mask: {list_images(self.same_as_run)}; "
                "--unchanged takes them, too"
            )
        if self.same_as_run_other_stays:
            lines.append(
                "left out, since the run has the same mask; the other one of an earlier import "
                f"stays: {list_images(self.same_as_run_other_stays)}; --unchanged replaces it"
            )
        if self.same_as_run_before:
            lines.append(
                "the run has the same mask, and so had an earlier import: "
                f"{list_images(self.same_as_run_before)}; delete those that nobody looked at"
            )
        lines.append(f"score with them: data.masks: {self.out}")
        lines.append(f"learn from them: retrain.corrected: {self.out}")
        return "\n".join(lines)
