"""What is exported, and how: the argument of all formats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wsss.config.base import Split
from wsss.export.errors import ExportError
from wsss.export.photos import Photos, PhotoWriter
from wsss.export.source import MaskOfImage, MaskSource
from wsss.labels.ignore import IGNORED

UNSURE: Final = "unsure"
"""The label of 255 in formats whose labels are words."""
POLYGONS: Final = "polygons_within"
"""What an export says of itself: the tolerance of its polygons, if it has any."""


@dataclass(frozen=True)
class ExportTask:
    """What is exported, and how."""

    source: MaskSource
    photos: Photos = "copy"
    polygons: bool = False
    """COCO: outlines in place of run lengths."""
    tolerance: float = 0.5
    """Pixels by which simplified outlines may differ."""
    photo_root: str = ""
    """Label Studio: what stands before the name of a photo."""

    def photo_writer(self, folder: Path) -> PhotoWriter:
        """Writes the photos of a split."""
        return PhotoWriter(folder, self.photos)

    def masks(self) -> Iterator[tuple[Split, MaskOfImage]]:
        """All masks, with their split."""
        for split in self.source.samples:
            for mask in self.source.masks(split):
                yield split, mask

    def name(self, mask: MaskOfImage, label: int) -> str:
        """A mask of one class, for messages."""
        return f"{mask.sample.id}, {self.source.classes.names[label - 1]}"

    def words(self) -> dict[int, str]:
        """The word of each label but the background.

        Raises:
            ExportError: a class has the name of the unsure pixels.
        """
        names = self.source.classes.names
        if UNSURE in names:
            raise ExportError(
                f"the class {UNSURE!r} has the name that this format gives to unsure pixels (255); "
                "rename the class in the table of tags, or export another format"
            )
        return {**dict(enumerate(names, start=1)), IGNORED: UNSURE}

    def about(self, form: str) -> dict[str, object]:
        """What the export was made from, for its folder."""
        source = self.source
        return {
            "format": form,
            "run": str(source.run),
            "product": source.product,
            "images": {split: len(samples) for split, samples in source.samples.items()},
            "classes": list(source.classes.names),
            **({POLYGONS: self.tolerance} if self.polygons else {}),
        }
