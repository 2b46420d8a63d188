"""COCO ground truth: label maps drawn from the instances JSON.

Where annotations overlap, a rule says which one is visible (``data.coco_truth``). Pixels under no
annotation are background.

========== =====================================================================================
crowd_void Crowd regions lie below all else and are 255 (void: single objects in them are not told
           apart). Of the instances, that with fewer pixels is on top, of equal ones that with the
           higher id.
voc_style  The annotation with the smaller ``area`` is on top, of equal ones that which comes first
           in the file. Crowd regions count as any other and show their class. Known as VOC-style
           masks of COCO.
weakclip   The annotation that comes first in the file is on top. Crowd regions show their class
           (Zhu et al., IJCV 2024, doi:10.1007/s11263-024-02224-2: its converter).
========== =====================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Bool, UInt8
from pycocotools import mask as rle

from wsss.config.data import CocoRule
from wsss.data.datasets.coco import CLASS_OF_CATEGORY, image_name, load_instances
from wsss.data.images.read import DEFAULT_MAX_PIXELS
from wsss.data.images.rle import rle_mask
from wsss.labels.ignore import IGNORED
from wsss.score.truth.errors import TruthError

DRAWN_RULES: Final[tuple[CocoRule, ...]] = ("crowd_void", "voc_style", "weakclip")
_FIELDS = ("id", "category_id", "iscrowd", "area", "segmentation")
_SHORTEST_POLYGON = 6  # numbers: three corners; pycocotools would take four numbers as a box


@dataclass(frozen=True)
class CocoTruth:
    """One image's annotations."""

    height: int
    width: int
    annotations: Sequence[Mapping[str, Any]]
    """In the order of the file."""
    rule: CocoRule
    max_pixels: int = DEFAULT_MAX_PIXELS

    def read(self) -> UInt8[np.ndarray, "height width"]:
        """Draw the label map."""
        return draw(
            self.annotations, self.height, self.width, self.rule, max_pixels=self.max_pixels
        )


class CocoLabels:
    """The annotations of an instances JSON, by file name of the image.

    Args:
        path: of the JSON.
        rule: by which label maps are drawn.
        max_pixels: larger images are not drawn.

    Raises:
        DataError: missing, no instances JSON, or of other categories than COCO's.
    """

    def __init__(self, path: Path, rule: CocoRule, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
        self._content = load_instances(path, shapes=True)
        self._path, self._rule, self._max_pixels = path, rule, max_pixels
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
        size = image["height"], image["width"]
        return CocoTruth(*size, tuple(needed), self._rule, self._max_pixels)


@dataclass(frozen=True)
class _Region:
    """The pixels of an annotation."""

    id: int
    label: int
    is_crowd: bool
    area: float
    """Number of pixels; for voc_style the ``area`` of the file, if it has one."""
    mask: Bool[np.ndarray, "h w"]


def draw(
    annotations: Sequence[Mapping[str, Any]],
    height: int,
    width: int,
    rule: CocoRule,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> UInt8[np.ndarray, "h w"]:
    """Draw annotations into a label map.

    Args:
        annotations: with ``id``, ``category_id`` (COCO's, 1 … 90), ``iscrowd``, ``area`` and
            ``segmentation`` (polygons, or RLE compressed or not), in the order of the file.
        height, width: of the image, pixels.
        rule: which annotation is visible where several lie, see above.
        max_pixels: larger images are refused.

    Raises:
        TruthError: the image is too large, or an outline is none or does not fit it.
    """
    if not 0 < height * width <= max_pixels or min(height, width) < 1:
        raise TruthError(f"says {width} x {height} pixels, expected 1 to {max_pixels}")
    labels = np.zeros((height, width), np.uint8)
    regions = [_region(annotation, height, width, rule) for annotation in annotations]
    for region in _from_bottom_to_top(regions, rule):
        is_void = region.is_crowd and rule == "crowd_void"
        labels[region.mask] = IGNORED if is_void else region.label
    return labels


def _from_bottom_to_top(regions: list[_Region], rule: CocoRule) -> list[_Region]:
    if rule == "crowd_void":
        return sorted(regions, key=lambda r: (not r.is_crowd, -r.area, r.id))
    if rule == "voc_style":
        return sorted(regions, key=lambda region: region.area)[::-1]
    if rule == "weakclip":
        return regions[::-1]
    raise ValueError(f"{rule}: nothing is drawn by it")


def _region(annotation: Mapping[str, Any], height: int, width: int, rule: CocoRule) -> _Region:
    try:
        mask = outline_mask(annotation.get("segmentation"), height, width)
        stated = annotation.get("area") if rule == "voc_style" else None
        area = float(np.count_nonzero(mask) if stated is None else stated)
        if not math.isfinite(area):
            raise ValueError(f"its area is {area}")
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        raise TruthError(
            f"the outline of annotation {annotation.get('id')} cannot be drawn "
            f"({type(error).__name__}: {error}); mend or remove it"
        ) from None
    label = CLASS_OF_CATEGORY[annotation["category_id"]] + 1
    return _Region(annotation["id"], label, bool(annotation.get("iscrowd", 0)), area, mask)


def outline_mask(segmentation: Any, height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """The pixels of an outline, which is checked first, because pycocotools does not check.

    It writes wherever a polygon's corners lie, and ends the process where that is too far.

    Args:
        segmentation: polygons, or RLE compressed or not.
        height, width: of the image, pixels.

    Raises:
        ValueError, TypeError, LookupError, ArithmeticError: it is none, or does not fit the image.
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
        return rle_mask(segmentation, height, width)
    return rle.decode(encoded).astype(bool)
