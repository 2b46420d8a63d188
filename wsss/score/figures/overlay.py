"""Label maps and heat maps laid over a photograph. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import matplotlib
import numpy as np
from jaxtyping import Bool, Float, UInt8

from wsss.labels.ignore import IGNORED

HEAT = "inferno"  # even steps of brightness: reads the same in grey and for every colour vision
OUTLINE_AT = 0.5
"""Class score at which a CAM is outlined."""
_VOID = np.array([224, 224, 192], np.float32)  # the colour that VOC gives its void borders
_STRIPE = 14  # pixels from stripe to stripe


def scaled(array: np.ndarray, long_side: int) -> np.ndarray:
    """A photo [h, w, 3] or a label map [h, w] at the size whose longer side is so long, pixels."""
    height, width = array.shape[:2]
    share = long_side / max(height, width)
    method = cv2.INTER_CUBIC if share > 1 else cv2.INTER_AREA
    size = max(1, round(share * width)), max(1, round(share * height))
    return cv2.resize(array, size, interpolation=cv2.INTER_NEAREST if array.ndim == 2 else method)


def paint_labels(
    photo: UInt8[np.ndarray, "h w 3"],
    labels: UInt8[np.ndarray, "h w"],
    palette: UInt8[np.ndarray, "256 3"],
    *,
    hatch_ignore: bool = False,
) -> UInt8[np.ndarray, "h w 3"]:
    """The palette's colours over a pale photo, with a white line between labels.

    Args:
        photo: RGB.
        labels: 0 background (the photo stays), class id + 1, 255 void.
        palette: RGB of each label.
        hatch_ignore: hatch 255 in grey (the ignore band) instead of painting it pale (void).
    """
    canvas = _pale(photo)
    colour = palette[labels].astype(np.float32)
    foreground = (labels > 0) & (labels != IGNORED)
    canvas[foreground] = 0.30 * canvas[foreground] + 0.70 * colour[foreground]
    ignored = labels == IGNORED
    if hatch_ignore:
        rows, columns = np.indices(labels.shape)
        stripe = (rows + columns) % _STRIPE < _STRIPE // 3
        canvas[ignored] = 0.35 * canvas[ignored] + 0.65 * 150.0
        canvas[ignored & stripe] = 245.0
    else:
        canvas[ignored] = _VOID
    # Void separates the labels of a truth already; lines on both sides would hide thin things.
    canvas[_edges(labels, around_ignore=hatch_ignore)] = 255.0
    return _to_uint8(canvas)


def paint_heat(
    photo: UInt8[np.ndarray, "h w 3"],
    scores: Float[np.ndarray, "classes h w"],
    classes: Sequence[int],
    palette: UInt8[np.ndarray, "256 3"],
) -> UInt8[np.ndarray, "h w 3"]:
    """The largest class score as heat; where it passes `OUTLINE_AT`, a line in the class's colour.

    Args:
        photo: RGB.
        scores: class scores in [0, 1]; may hold no class.
        classes: 0-based id of each.
        palette: RGB of each label.
    """
    largest = scores.max(axis=0) if len(scores) else np.zeros(photo.shape[:2], np.float32)
    heat = matplotlib.colormaps[HEAT](np.clip(largest, 0, 1))[..., :3].astype(np.float32) * 255
    canvas = 0.35 * _grey(photo) + 0.65 * heat
    result = np.ascontiguousarray(_to_uint8(canvas))
    for row, index in enumerate(classes):
        region = (scores[row] > OUTLINE_AT) & (scores.argmax(axis=0) == row)
        lines, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(result, lines, -1, (255, 255, 255), 6, cv2.LINE_AA)
        cv2.drawContours(result, lines, -1, palette[index + 1].tolist(), 3, cv2.LINE_AA)
    return result


def _to_uint8(canvas: Float[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    return np.clip(canvas.round(), 0, 255).astype(np.uint8)


def _grey(photo: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 1"]:
    return photo.astype(np.float32) @ np.array([[0.299], [0.587], [0.114]], np.float32)


def _pale(photo: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 3"]:
    """Half the colour gone and a third of the way to white, so that painted labels stand out."""
    return (0.65 * (0.5 * photo + 0.5 * _grey(photo)) + 0.35 * 255).astype(np.float32)


def _edges(labels: UInt8[np.ndarray, "h w"], *, around_ignore: bool) -> Bool[np.ndarray, "h w"]:
    """Pixels whose right or lower neighbour has another label, two pixels wide."""
    across, down = labels[:, :-1] != labels[:, 1:], labels[:-1] != labels[1:]
    if not around_ignore:
        void = labels == IGNORED
        across &= ~(void[:, :-1] | void[:, 1:])
        down &= ~(void[:-1] | void[1:])
    edge = np.zeros(labels.shape, np.uint8)
    edge[:, :-1] |= across
    edge[:-1] |= down
    return cv2.dilate(edge, np.ones((2, 2), np.uint8)).astype(bool)
