"""What an import of corrected masks took, and what it left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from wsss.score.names import list_images


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

    @property
    def masks(self) -> int:
        """Masks that the source holds of the run's images."""
        return self.new + self.changed + self.unchanged

    def __str__(self) -> str:
        lines = [
            f"{self.masks} masks of {self.images} images in {self.out}: {self.new} new, "
            f"{self.changed} changed, {self.unchanged} as before"
        ]
        if self.empty:
            lines.append(f"left out, since nothing was drawn there: {list_images(self.empty)}")
        if self.unknown:
            lines.append(f"left out, since the run has none so called: {list_images(self.unknown)}")
        lines.append(f"score with them: data.masks: {self.out}")
        lines.append(f"learn from them: retrain.corrected: {self.out}")
        return "\n".join(lines)
