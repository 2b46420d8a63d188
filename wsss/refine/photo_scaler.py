"""A photo at a scale, resized as the released code of a method does or to whole patches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from wsss.clip.images import input_size, resize_image
from wsss.compute.packed_rows import to_device

Photo = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True)
class PhotoScaler:
    """A photo at a scale, as a network of patches takes it."""

    normalize: Callable[[Photo], Float[Tensor, "3 height width"]]
    patch: tuple[int, int]
    """Height and width, pixels."""
    device: torch.device
    grid: Literal["aligned", "floored"]
    """``aligned`` resizes a photo to whole patches; ``floored`` to whole pixels, as released."""
    scales_from: Literal["photo", "scale_1"]
    """What scales other than 1 are made from, with ``floored``."""
    resample: Literal["normalized", "opencv"] = "normalized"
    """With ``floored``: bilinear without antialias, of the normalised photo, or of its 8 bits."""
    square: int | None = None
    """Side of the square that every photo becomes at scale 1, pixels; else ..."""
    short_side: int | None = None
    """... its short side, as far as ``long_side`` allows, else ..."""
    long_side: int | None = None
    """... its long side; None for the photo's own size."""
    least_patches: int = 1
    """Patches that a network needs along each side: a narrower photo is stretched."""

    def __call__(self, photo: Photo, scale: float) -> Float[Tensor, "1 3 rows columns"]:
        """The normalised pixels of a photo.

        With ``floored`` the sides are no whole patches: a remainder is cut off after mirroring, as
        CLIP's first convolution does.
        """
        sides = self._sides(photo)
        if self.grid == "aligned":
            if self.scales_from == "scale_1":
                sides = (max(1, round(sides[0])), max(1, round(sides[1])))
            height, width = (max(1, round(side * scale)) for side in sides)
            size = input_size(height, width, self.patch)
            size = (max(size[0], self._least[0]), max(size[1], self._least[1]))
            return self._on_device(resize_image(photo, size))
        if self.resample == "opencv":
            height, width = (
                max(int(s * scale + 0.5), p) for s, p in zip(sides, self._least, strict=True)
            )
            resized = cv2.resize(photo, (width, height), interpolation=cv2.INTER_LINEAR)
            return self._on_device(resized)
        pixels = self._on_device(photo)
        if self.scales_from == "photo":
            pixels = self._to_whole_pixels(pixels, (sides[0] * scale, sides[1] * scale))
        else:
            pixels = self._to_whole_pixels(pixels, sides)
            if scale != 1 and int(min(pixels.shape[2:]) * scale) >= max(self._least):
                # The factor is given, not the size: coordinates step by exactly 1 / scale.
                pixels = F.interpolate(pixels, scale_factor=scale, mode="bilinear")
        return pixels

    def _on_device(self, photo: Photo) -> Float[Tensor, "1 3 height width"]:
        """Normalised, without a wait for the device: the host goes on with the next scale."""
        return to_device(self.normalize(photo)[None], self.device)

    def _to_whole_pixels(
        self, pixels: Float[Tensor, "1 3 height width"], sides: tuple[float, float]
    ) -> Float[Tensor, "1 3 rows columns"]:
        """Resize to whole pixels, each side as many patches as are needed."""
        height, width = (max(int(s), p) for s, p in zip(sides, self._least, strict=True))
        size = (height, width)
        return F.interpolate(pixels, size, mode="bilinear", align_corners=False)

    @property
    def _least(self) -> tuple[int, int]:
        """Height and width, pixels."""
        return self.patch[0] * self.least_patches, self.patch[1] * self.least_patches

    def _sides(self, photo: Photo) -> tuple[float, float]:
        """Height and width at scale 1."""
        height, width = photo.shape[:2]
        if self.square is not None:
            return float(self.square), float(self.square)
        factors = []
        if self.short_side is not None:
            factors.append(self.short_side / min(height, width))
        if self.long_side is not None:
            factors.append(self.long_side / max(height, width))
        factor = min(factors, default=1.0)
        return height * factor, width * factor
