"""Outlines of masks as polygons, simplified; holes are cut open by a line to the outer outline.

A mask is traced on a grid of half pixels: the vertices of pixel p lie at 2 p and 2 p + 1. Programs
rasterise polygons in two ways. pycocotools takes the pixels whose centre is inside, so `at_edges`
puts vertices around the centres. Others (OpenCV's fillPoly, as Ultralytics and supervision use it)
take all pixels that a polygon of whole numbers touches, after rounding or cutting off, so
`at_pixels` keeps each vertex within its pixel. Without simplification `at_edges` is exact.
`at_pixels` is, too, where a part has no hole: the line that opens a hole crosses the background.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float64, UInt8
from pycocotools import mask as rle

from wsss.export.cut_open import Outline, cut_open

_FEWEST = 3  # vertices of a polygon


def outlines(mask: UInt8[np.ndarray, "height width"], tolerance: float) -> list[Outline]:
    """The outline of each connected part of a mask, x and y on the grid of half pixels.

    Args:
        mask: 1 inside, 0 outside.
        tolerance: pixels by which a simplified outline may differ (Douglas and Peucker); 0: exact.
    """
    left, top, width, height = cv2.boundingRect(mask)
    if not width:
        return []
    part = mask[top : top + height, left : left + width]
    fine = cv2.resize(part, (2 * width, 2 * height), interpolation=cv2.INTER_NEAREST)
    contours, hierarchy = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    simple = [_simplified(contour, 2 * tolerance) for contour in contours]
    shift = np.array([2 * left, 2 * top], np.int32)
    result = []
    for index, (_, _, hole, parent) in enumerate(hierarchy[0]):
        if parent >= 0:
            continue
        holes = []
        while hole >= 0:
            holes.append(simple[hole])
            hole = hierarchy[0][hole][0]
        result.append(cut_open(simple[index], holes) + shift)
    return result


def at_edges(outline: Outline) -> Float64[np.ndarray, "_ 2"]:
    """Vertices in pixels, for readers that take the pixels whose centre is inside."""
    return (outline + 0.5) / 2


def at_pixels(outline: Outline) -> Float64[np.ndarray, "_ 2"]:
    """Vertices in pixels, for readers that take all pixels that the polygon touches."""
    return outline // 2 + 0.25 + 0.2 * (outline % 2)


def drawn_by_centres(
    polygons: Sequence[Float64[np.ndarray, "_ 2"]], height: int, width: int
) -> UInt8[np.ndarray, "height width"]:
    """The mask that pycocotools makes of polygons."""
    flat = [polygon.ravel().tolist() for polygon in polygons]
    return rle.decode(rle.merge(rle.frPyObjects(flat, height, width)))


def drawn_by_touch(
    polygons: Sequence[Float64[np.ndarray, "_ 2"]], height: int, width: int
) -> UInt8[np.ndarray, "height width"]:
    """The mask that OpenCV makes of polygons, each filled by itself."""
    mask = np.zeros((height, width), np.uint8)
    for polygon in polygons:
        cv2.fillPoly(mask, [polygon.astype(np.int32)], 1)
    return mask


def iou(first: UInt8[np.ndarray, "h w"], second: UInt8[np.ndarray, "h w"]) -> float:
    """Intersection over union of two masks, not both empty."""
    both, either = np.count_nonzero(first & second), np.count_nonzero(first | second)
    return both / either


def _simplified(contour: np.ndarray, tolerance: float) -> Outline:
    """A contour of OpenCV with fewer vertices; what would vanish stays as it is."""
    simple = cv2.approxPolyDP(contour, tolerance, True) if tolerance else contour
    return (simple if len(simple) >= _FEWEST else contour).reshape(-1, 2)
