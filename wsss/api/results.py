"""What the public functions return: arrays with their names, and pictures of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from wsss.api.inputs import section
from wsss.config.labels import MasksConfig
from wsss.data.images.label_png import save_label_png, voc_palette
from wsss.labels.ignore import ignore_band
from wsss.labels.upsample import upsample
from wsss.score.figures.fonts import class_name
from wsss.score.figures.overlay import paint_heat, paint_labels
from wsss.score.figures.sheet_layout import LegendItem, Row, cell_size, draw_sheet

PALETTE: UInt8[np.ndarray, "256 3"] = np.array(voc_palette(), np.uint8)
"""RGB colour of each label, VOC's."""
_MOST_COLUMNS = 6
"""Tags that stand side by side on a sheet."""
_SMALLEST = 360
"""Smaller photos are enlarged for a picture, pixels of the longer side."""


@dataclass(frozen=True, eq=False)
class ClassMaps:
    """A map of each tag of a photo."""

    photo: UInt8[np.ndarray, "height width 3"]
    tags: tuple[str, ...]
    maps: Float32[np.ndarray, "tags rows columns"]
    """In 0 … 1, on the grid of patches."""
    propagated: Float32[np.ndarray, "tags rows columns"] | None = None
    """The maps after the affinity, in 0 … 1; None where it was switched off."""
    probabilities: Float32[np.ndarray, " tags"] | None = None
    """Of each tag, in a softmax over that tag, the other tags and the backgrounds."""
    attention: Float32[np.ndarray, "tokens tokens"] | None = None
    """What the maps were propagated along: the mean attention of the last blocks, class token
    first, or another affinity, of patches alone; see `wsss.propagate`."""
    background: Float32[np.ndarray, "rows columns"] | None = None
    """A refiner's score of the background, in 0 … 1."""

    def __repr__(self) -> str:
        rows, columns = self.maps.shape[1:]
        return f"<ClassMaps of {', '.join(self.tags)} on {rows} x {columns} patches>"

    def overlay(self, tag: str | None = None) -> Image.Image:
        """Heat over the photo: of one tag, or the largest of all; propagated maps where there are.

        A line in the colour of its class surrounds each region above 0.5. Small photos are
        enlarged.

        Raises:
            ValueError: the tag is none of the photo's.
        """
        if tag is not None and tag not in self.tags:
            raise ValueError(f"no tag {tag!r}; the tags are {', '.join(self.tags)}")
        shown = range(len(self.tags)) if tag is None else [self.tags.index(tag)]
        best = self.maps if self.propagated is None else self.propagated
        return Image.fromarray(_heat(_enlarged(self.photo), best, shown))

    def plot(self) -> Image.Image:
        """A sheet: the photo, and the map of each tag before and after the affinity.

        A column is a tag; with more than six tags, a row is one.
        """
        stages = {"maps": self.maps}
        if self.propagated is not None:
            stages["propagated"] = self.propagated
        tags = range(len(self.tags))
        photo = _in_cell(self.photo)
        heat = {name: [_heat(photo, maps, [k]) for k in tags] for name, maps in stages.items()}
        columns: tuple[str, ...] = self.tags
        rows = [Row((photo, *maps), name, ()) for name, maps in heat.items()]
        if len(tags) > _MOST_COLUMNS:
            columns = tuple(stages)
            by_tag = zip(self.tags, *heat.values(), strict=True)
            rows = [Row((photo, *maps), tag, ()) for tag, *maps in by_tag]
        note = "Dark is 0, bright is 1; a line surrounds what is above 0.5."
        return draw_sheet("Class activation maps", ["photo", *columns], rows, [], note)


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A label map of a photo. ``labels, confidence = segmentation`` unpacks it."""

    photo: UInt8[np.ndarray, "height width 3"]
    labels: UInt8[np.ndarray, "height width"]
    """Indices into ``names``."""
    confidence: Float32[np.ndarray, "height width"]
    """Probability of the label, 0 … 1."""
    names: tuple[str, ...]
    """Of the labels, background first."""
    palette: UInt8[np.ndarray, "256 3"]
    """RGB colour of each label."""

    def __repr__(self) -> str:
        height, width = self.labels.shape
        return f"<Segmentation of {width} x {height} pixels into {len(self.names)} labels>"

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self.labels, self.confidence))

    def with_ignore(self, min_confidence: float = 0.95) -> UInt8[np.ndarray, "height width"]:
        """The labels with 255 (ignored in training) where the confidence is below the minimum.

        Raises:
            ValueError: the minimum is not in 0 … 1.
        """
        settings = section(MasksConfig, {"min_confidence": min_confidence})
        return ignore_band(self.labels, self.confidence, settings.min_confidence)

    def overlay(self) -> Image.Image:
        """The labels in their colours over the photo; small photos are enlarged."""
        return Image.fromarray(self._painted(_enlarged(self.photo)))

    def plot(self) -> Image.Image:
        """A sheet: the photo, the labels over it, the confidence, and the names of the colours."""
        legend = [
            LegendItem(class_name(self.names[label], label), tuple(self.palette[label].tolist()))
            for label in np.unique(self.labels).tolist()
            if label > 0
        ]
        photo = _in_cell(self.photo)
        sure = paint_heat(self.photo, self.confidence[None], [], self.palette)
        row = Row((photo, self._painted(photo), _in_cell(sure)), "", ())
        columns = ["photo", "labels", "confidence"]
        return draw_sheet("Labels", columns, [row], legend, "Confidence: dark is 0, bright is 1.")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the labels as a palette PNG (mode P) in their colours, whose values they are.

        Raises:
            ValueError: the name does not end in ``.png``; other formats would change the values.
        """
        file = Path(path)
        if file.suffix.lower() != ".png":
            raise ValueError(
                f"{file}: labels are written as PNG alone, which keeps their values; "
                "name a file that ends in .png"
            )
        save_label_png(file, self.labels, self.palette.tolist())

    def _painted(
        self, photo: UInt8[np.ndarray, "rows columns 3"]
    ) -> UInt8[np.ndarray, "rows columns 3"]:
        size = (photo.shape[1], photo.shape[0])
        labels = Image.fromarray(self.labels).resize(size, Image.Resampling.NEAREST)
        return paint_labels(photo, np.asarray(labels), self.palette)


def _enlarged(photo: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "rows columns 3"]:
    factor = max(1.0, _SMALLEST / max(photo.shape[:2]))
    return _resized(photo, round(photo.shape[0] * factor), round(photo.shape[1] * factor))


def _in_cell(photo: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "rows columns 3"]:
    """At the size of a picture on a sheet."""
    return _resized(photo, *cell_size(*photo.shape[:2]))


def _resized(
    photo: UInt8[np.ndarray, "height width 3"], rows: int, columns: int
) -> UInt8[np.ndarray, "rows columns 3"]:
    return np.asarray(Image.fromarray(photo).resize((columns, rows), Image.Resampling.BICUBIC))


def _heat(
    photo: UInt8[np.ndarray, "rows columns 3"],
    maps: Float32[np.ndarray, "tags h w"],
    shown: Sequence[int],
) -> UInt8[np.ndarray, "rows columns 3"]:
    return paint_heat(photo, upsample(maps[list(shown)], photo.shape[:2]), shown, PALETTE)
