"""Between the patch grid, the size at which labels are computed, and the size of the image."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8


def upsample(
    grid: Float[np.ndarray, "classes h w"], size: tuple[int, int]
) -> Float32[np.ndarray, "classes height width"]:
    """Resize maps bilinearly (pixel centres, edges repeated), as published, with OpenCV.

    Each call of OpenCV resizes one plane, which gives the published values bit for bit. Planes as
    channels of one call differ in the last bit, are slower (16x at 20 classes) and limited to 128;
    torch's ``interpolate`` differs in the last bits, too.

    Args:
        grid: any float type; there may be no class.
        size: height and width of the result, pixels.
    """
    height, width = size
    large = np.empty((len(grid), height, width), np.float32)
    for plane, target in zip(grid, large, strict=True):
        small = np.ascontiguousarray(plane, np.float32)
        target[...] = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return large


def shrink(
    maps: Float32[np.ndarray, "labels h w"], size: tuple[int, int]
) -> Float32[np.ndarray, "labels height width"]:
    """Means over areas; maps of that size are returned as they are.

    Args:
        maps: no smaller than the result.
        size: height and width of the result, pixels.
    """
    if maps.shape[1:] == size:
        return maps
    height, width = size
    planes = [cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA) for plane in maps]
    return np.stack(planes)


class RunningShrink:
    """`shrink` of maps that come in stripes of rows.

    Args:
        labels: number of maps.
        before: height and width of the maps, pixels.
        after: height and width of the result, no larger.
    """

    def __init__(self, labels: int, before: tuple[int, int], after: tuple[int, int]) -> None:
        self.maps: Float32[np.ndarray, "labels h w"] = np.zeros((labels, *after), np.float32)
        self._step = before[0] / after[0]

    def add(self, rows: slice, stripe: Float32[np.ndarray, "labels rows width"]) -> None:
        """Add what a stripe gives to the means.

        Args:
            rows: where the stripe lies in the maps.
        """
        _, height, width = self.maps.shape
        first, last = int(rows.start / self._step), -int(-rows.stop // self._step)
        last = min(height, max(first + 1, last))
        # The share of each row of the stripe in each row of the result
        lower = np.arange(first, last)[:, None] * self._step
        row = np.arange(rows.start, rows.stop)
        overlap = np.minimum(lower + self._step, row + 1) - np.maximum(lower, row)
        share = (np.clip(overlap, 0, 1) / self._step).astype(np.float32)
        for plane, target in zip(stripe, self.maps, strict=True):
            narrow = cv2.resize(plane, (width, len(plane)), interpolation=cv2.INTER_AREA)
            target[first:last] += share @ narrow


def winners(
    maps: Float[np.ndarray, "labels h w"], size: tuple[int, int]
) -> tuple[UInt8[np.ndarray, "height width"], Float[np.ndarray, "height width"]]:
    """Arg max and maximum of maps at another size, of the maps' type.

    Only one map at a time is enlarged (`upsample`), so the memory does not grow with the labels.

    Args:
        maps: at most 255; the first one wins a tie.
        size: height and width of the result, pixels.
    """
    if maps.shape[1:] == size:
        return maps.argmax(axis=0).astype(np.uint8), maps.max(axis=0)
    index = np.zeros(size, np.uint8)
    largest = upsample(maps[:1], size)[0]
    for number in range(1, len(maps)):
        plane = upsample(maps[number : number + 1], size)[0]
        index[plane > largest] = number
        np.maximum(largest, plane, out=largest)
    return index, largest.astype(maps.dtype, copy=False)
