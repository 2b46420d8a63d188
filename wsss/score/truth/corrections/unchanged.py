"""Whether a mask that comes back is the one that the run exported: then nobody corrected it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from wsss.labels.ignore import IGNORED

Labels = UInt8[np.ndarray, "_ _"]
_NEIGHBOURS = np.ones((3, 3), np.uint8)


def is_unchanged(labels: Labels, run_masks: Iterable[Labels], *, outlined: bool) -> bool:
    """Whether a mask is one of the run's.

    Programs that round outlines, or trace them anew, move the edges of a mask by a pixel, though
    nobody touched it. With ``outlined`` such a mask counts as equal, too: each of its pixels has
    the label that the run's mask has there or beside it, and the other way round. So a part that
    was painted or removed, however small, is a correction; an edge that moved by a pixel is none.

    Args:
        run_masks: those that the run has of the image, of each product, the likeliest first.
        outlined: the file may come from such a program (COCO, CVAT). COCO has no word for unsure
            pixels either, so they may be background in it.
    """
    return any(
        np.array_equal(labels, mask) or (outlined and _touch(labels, mask))
        for mask in _variants(run_masks, outlined=outlined)
        if mask.shape == labels.shape
    )


def _variants(run_masks: Iterable[Labels], *, outlined: bool) -> Iterator[Labels]:
    for mask in run_masks:
        yield mask
        if outlined and (mask == IGNORED).any():
            yield np.where(mask == IGNORED, 0, mask)


def _touch(first: Labels, second: Labels) -> bool:
    """Whether no pixel of either is more than a pixel from the same label in the other."""
    return all(
        not (inside & ~_grown(other)).any()
        for a, b in _planes(first, second)
        for inside, other in ((a, b), (b, a))
    )


def _planes(
    first: Labels, second: Labels
) -> Iterator[tuple[Bool[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]]:
    counts = np.bincount(first.ravel(), minlength=256) + np.bincount(second.ravel(), minlength=256)
    for label in np.flatnonzero(counts).tolist():
        yield first == label, second == label


def _grown(inside: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    return cv2.dilate(inside.view(np.uint8), _NEIGHBOURS).view(bool)
