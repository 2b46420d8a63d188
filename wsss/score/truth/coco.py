"""COCO ground truth: label maps drawn from the instances JSON.

Rule: crowd regions are painted first, as 255 (void: single objects in them are not told apart);
then the instances from the largest to the smallest area in pixels, so that what lies on
something larger stays visible; of equal areas the higher annotation id is on top. Pixels under no
instance are background.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from pycocotools import mask as rle

from wsss.data.datasets.coco import CLASS_OF_CATEGORY, image_name, load_instances
from wsss.data.images.read import DEFAULT_MAX_PIXELS
from wsss.score.metrics.confusion import IGNORE
from wsss.score.truth.errors import TruthError

RULE = "smaller instances on top, crowd regions 255"
"""The rule in a few words, for records and labels."""
_FIELDS = ("id", "category_id", "iscrowd", "segmentation")
_SHORTEST_POLYGON = 6  # numbers: three corners; pycocotools would take four numbers as a box


@dataclass(frozen=True)
class CocoTruth:
    """One image's annotations."""

    height: int
    width: int
    annotations: Sequence[Mapping[str, Any]]

    def read(self) -> UInt8[np.ndarray, "height width"]:
        """Draw the label map."""
        return draw(self.annotations, self.height, self.width)


class CocoLabels:
    """The annotations of an instances JSON, by file name of the image.

    Args:
        path: of the JSON.

    Raises:
        DataError: missing, no instances JSON, or of other categories than COCO's.
    """

    def __init__(self, path: Path) -> None:
        self._content = load_instances(path, shapes=True)
        self._path = path
        self._images = {image_name(image): image for image in self._content.images}

    @property
    def file_names(self) -> tuple[str, ...]:
        """All images, in the order of the file."""
        return tuple(self._images)

    def find(self, file_name: str) -> CocoTruth | None:
        """The truth of an image; an image without instances is all background; None if unknown.

        Raises:
            TruthError: the JSON does not say how large the image is.
        """
        image = self._images.get(file_name)
        if image is None:
            return None
        annotations = self._content.annotations.get(image["id"], ())
        needed = [{key: a[key] for key in _FIELDS if key in a} for a in annotations]
        if "height" not in image or "width" not in image:
            raise TruthError(f"{self._path}: image {file_name!r} has no height or width; add them")
        return CocoTruth(image["height"], image["width"], tuple(needed))


def draw(
    annotations: Sequence[Mapping[str, Any]], height: int, width: int
) -> UInt8[np.ndarray, "h w"]:
    """Draw annotations into a label map by the rule above.

    Args:
        annotations: with ``id``, ``category_id`` (COCO's, 1 … 90), ``iscrowd`` and
            ``segmentation`` (polygons, or RLE compressed or not).
        height, width: of the image, pixels.

    Raises:
        TruthError: the image is too large, or an outline is none or does not fit it.
    """
    if not 0 < height * width <= DEFAULT_MAX_PIXELS or min(height, width) < 1:
        raise TruthError(f"says {width} x {height} pixels, expected 1 to {DEFAULT_MAX_PIXELS}")
    labels = np.zeros((height, width), np.uint8)
    instances = []
    for annotation in annotations:
        try:
            mask = _mask(annotation.get("segmentation"), height, width)
        except (ValueError, TypeError, LookupError, ArithmeticError) as error:
            raise TruthError(
                f"the outline of annotation {annotation.get('id')} cannot be drawn "
                f"({type(error).__name__}: {error}); mend or remove it"
            ) from None
        if annotation.get("iscrowd", 0):
            labels[mask] = IGNORE
        else:
            label = CLASS_OF_CATEGORY[annotation["category_id"]] + 1
            instances.append((-int(mask.sum()), annotation["id"], label, mask))
    for _, _, label, mask in sorted(instances, key=lambda entry: entry[:2]):
        labels[mask] = label
    return labels


def _mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """The pixels of an outline, which is checked first, because pycocotools does not check.

    It writes wherever a polygon's corners lie, and ends the process where that is too far.
    """
    if not segmentation or not isinstance(segmentation, list | dict):
        raise TypeError("is no polygon and no RLE" if segmentation else "it has none")
    if isinstance(segmentation, list):
        if not all(isinstance(corners, list) for corners in segmentation):
            raise TypeError("is no list of polygons")
        if any(len(c) % 2 or any(isinstance(n, list) for n in c) for c in segmentation):
            raise ValueError("a polygon is no list of x, y, x, y …")
        polygons = [corners for corners in segmentation if len(corners) >= _SHORTEST_POLYGON]
        if not polygons:
            return np.zeros((height, width), bool)
        for corners in polygons:
            numbers = np.asarray(corners, np.float64)
            far = np.maximum(np.resize([width, height], len(numbers)), 64)
            if numbers.ndim != 1 or not np.all((numbers >= -far) & (numbers <= 2 * far)):
                raise ValueError(f"a corner lies far outside of the {width} x {height} pixels")
        encoded = rle.merge(rle.frPyObjects(polygons, height, width))
    else:
        counts = segmentation["counts"]
        counts = counts if isinstance(counts, list) else _run_lengths(counts)
        if list(segmentation["size"]) != [height, width]:
            raise ValueError(f"is of size {segmentation['size']}, not [{height}, {width}]")
        if not all(isinstance(n, int) and n >= 0 for n in counts) or sum(counts) != height * width:
            raise ValueError(f"its runs are not the {height * width} pixels")
        size = {"size": [height, width], "counts": counts}
        encoded = rle.frPyObjects(size, height, width)
    return rle.decode(encoded).astype(bool)


def _run_lengths(text: str | bytes) -> list[int]:
    """The runs of COCO's compressed form.

    Numbers are written in groups of five bits, the lowest first, as characters from 48 on; bit six
    says that more follow, bit five of the last one is the sign. From the fourth on, they are
    differences to the run before the last.
    """
    runs: list[int] = []
    value = shift = 0
    for byte in text.encode("ascii") if isinstance(text, str) else text:
        group = byte - 48
        if not 0 <= group < 64 or shift > 60:
            raise ValueError("its runs are not COCO's")
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("its runs are cut off")
    return runs
