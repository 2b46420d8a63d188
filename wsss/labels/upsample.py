"""From the patch grid to image size."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, Float32


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
