"""Photometric distortion of training photos, as in mmsegmentation (SSD, arXiv:1512.02325)."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8

Photo = UInt8[np.ndarray, "height width 3"]

_BRIGHTNESS = 32
_CONTRAST = (0.5, 1.5)
_SATURATION = (0.5, 1.5)
_HUE = 18  # of OpenCV's 180 steps
_HUES = 180


def distort(photo: Photo, generator: np.random.Generator) -> Photo:
    """Random brightness, contrast, saturation and hue, each with probability one half.

    Contrast is applied before or after saturation and hue, at random.

    Args:
        photo: RGB.
        generator: the photo does not change how many numbers are drawn from it.
    """
    brightness, contrast_first, contrast, saturation, hue = generator.random(5) < 0.5
    shift = generator.uniform(-_BRIGHTNESS, _BRIGHTNESS)
    factor, colour = generator.uniform(*_CONTRAST), generator.uniform(*_SATURATION)
    turn = int(generator.integers(-_HUE, _HUE + 1))
    if brightness:
        photo = _clip(photo + np.float32(shift))
    if contrast and contrast_first:
        photo = _clip(photo * np.float32(factor))
    if saturation or hue:
        shades = cv2.cvtColor(photo, cv2.COLOR_RGB2HSV)
        if saturation:
            shades[..., 1] = _clip(shades[..., 1] * np.float32(colour))
        if hue:
            shades[..., 0] = (shades[..., 0].astype(np.int16) + turn) % _HUES
        photo = cv2.cvtColor(shades, cv2.COLOR_HSV2RGB)
    if contrast and not contrast_first:
        photo = _clip(photo * np.float32(factor))
    return photo


def _clip(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).astype(np.uint8)
