"""What an export wrote, and what its format cannot say."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from wsss.data.counted import counted
from wsss.labels.ignore import IGNORED


@dataclass
class Report:
    """Numbers of an export, for people."""

    out: Path
    form: str
    images: int = 0
    masks: int = 0
    """Pairs of image and class."""
    turned: int = 0
    """Photos that were written upright."""
    unsure: int = 0
    """Pixels that became background, since the format has no word for unsure ones."""
    pixels: int = 0
    ious: list[float] = field(default_factory=list)
    """Of the polygons of each mask with the mask."""
    worst: str = ""

    def count(self, labels: UInt8[np.ndarray, "h w"], *, keeps_unsure: bool) -> list[int]:
        """Count a label map; gives the labels of its classes, ascending."""
        present = np.flatnonzero(np.bincount(labels.ravel(), minlength=256)).tolist()
        classes = [label for label in present if label not in (0, IGNORED)]
        self.images += 1
        self.masks += len(classes)
        self.pixels += labels.size
        if not keeps_unsure:
            self.unsure += int(np.count_nonzero(labels == IGNORED))
        return classes

    def add_iou(self, value: float, name: str) -> None:
        """Note how well polygons fit the mask that they stand for."""
        if value < min(self.ious, default=2.0):
            self.worst = name
        self.ious.append(value)

    def __str__(self) -> str:
        images, masks = counted(self.images, "image"), counted(self.masks, "mask")
        lines = [f"{self.form}: {images}, {masks} in {self.out}"]
        if self.ious:
            mean = sum(self.ious) / len(self.ious)
            lines.append(
                f"polygons fit the masks with an IoU of {mean:.3f} on average, "
                f"{min(self.ious):.3f} at worst ({self.worst})"
            )
        if self.unsure:
            lines.append(
                f"{100 * self.unsure / self.pixels:.1f} % of the pixels are unsure (255); this "
                "format has no word for them, they are background there"
            )
        if self.turned:
            lines.append(f"{counted(self.turned, 'photo')} stored turned, written upright")
        return "\n".join(lines)
