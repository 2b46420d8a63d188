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

from wsss.data.coco import CLASS_OF_CATEGORY, load_instances
from wsss.score.confusion import IGNORE

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
        self._images = {str(image["file_name"]): image for image in self._content.images}

    @property
    def file_names(self) -> tuple[str, ...]:
        """All images, in the order of the file."""
        return tuple(self._images)

    def find(self, file_name: str) -> CocoTruth | None:
        """The truth of an image; an image without instances is all background; None if unknown."""
        image = self._images.get(file_name)
        if image is None:
            return None
        found = self._content.annotations.get(image["id"], ())
        needed = [{name: one[name] for name in _FIELDS if name in one} for one in found]
        return CocoTruth(int(image["height"]), int(image["width"]), tuple(needed))


def draw(
    annotations: Sequence[Mapping[str, Any]], height: int, width: int
) -> UInt8[np.ndarray, "h w"]:
    """Draw annotations into a label map by the rule above.

    Args:
        annotations: with ``id``, ``category_id`` (COCO's, 1 … 90), ``iscrowd`` and
            ``segmentation`` (polygons, or RLE compressed or not).
        height, width: of the image, pixels.
    """
    labels = np.zeros((height, width), np.uint8)
    instances = []
    for annotation in annotations:
        mask = _mask(annotation["segmentation"], height, width)
        if annotation.get("iscrowd", 0):
            labels[mask] = IGNORE
        else:
            label = CLASS_OF_CATEGORY[annotation["category_id"]] + 1
            instances.append((-int(mask.sum()), annotation["id"], label, mask))
    for _, _, label, mask in sorted(instances, key=lambda entry: entry[:2]):
        labels[mask] = label
    return labels


def _mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    if isinstance(segmentation, list):
        polygons = [corners for corners in segmentation if len(corners) >= _SHORTEST_POLYGON]
        if not polygons:
            return np.zeros((height, width), bool)
        encoded = rle.merge(rle.frPyObjects(polygons, height, width))
    elif isinstance(segmentation["counts"], list):
        encoded = rle.frPyObjects(segmentation, height, width)
    else:
        encoded = segmentation
    mask: np.ndarray = rle.decode(encoded)
    return mask.astype(bool)
