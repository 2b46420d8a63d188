"""Random scaling and colour, as transforms of mmsegmentation, and the way of a batch to a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from wsss.compute.packed_rows import to_device
from wsss.retrain.mm import (
    MODELS,
    TRANSFORMS,
    BaseTransform,
    SegDataPreProcessor,
    imresize,
)


@TRANSFORMS.register_module()
class RandomOwnScale(BaseTransform):  # type: ignore[misc]
    """Scale an image, and its mask to the nearest pixel, by one random factor.

    Stock ``RandomResize`` scales to a fixed frame first, which would blow small images up.

    Args:
        ratio_range: lowest and highest factor, between which all are equally likely.
        choices: factors, one of which is drawn instead; empty for the range.
        short_side: pixels that factor 1 gives the shorter side; None for the image's own size.
    """

    def __init__(
        self,
        ratio_range: Sequence[float],
        choices: Sequence[float] = (),
        short_side: int | None = None,
        interpolation: str = "bilinear",
    ) -> None:
        self.low, self.high = ratio_range
        self.choices, self.short_side, self.interpolation = choices, short_side, interpolation

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replace ``img`` [H, W, 3] and ``gt_seg_map`` [H, W] by their scaled versions."""
        if self.choices:
            factor = self.choices[np.random.randint(len(self.choices))]
        else:
            factor = np.random.uniform(self.low, self.high)
        height, width = results["img"].shape[:2]
        if self.short_side is not None:
            factor *= self.short_side / min(height, width)
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        results["img"] = imresize(results["img"], size, interpolation=self.interpolation)
        results["gt_seg_map"] = imresize(results["gt_seg_map"], size, interpolation="nearest")
        results["img_shape"] = results["img"].shape[:2]
        return results


@TRANSFORMS.register_module()
class HsvJitter(BaseTransform):  # type: ignore[misc]
    """Shift hue, saturation and value of an image each by its own random integer.

    Args:
        reach: the largest shift up or down, in OpenCV's 8-bit units: 2 degrees of hue (which wraps
            around), 1/255 of saturation and value (which are clipped).
    """

    def __init__(self, reach: int) -> None:
        self.reach = reach

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replace ``img`` [H, W, 3], BGR."""
        shift = np.random.randint(-self.reach, self.reach + 1, 3)
        results["img"] = shift_hsv(results["img"], shift)
        return results


def shift_hsv(image: UInt8[np.ndarray, "h w 3"], shift: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    """An image (BGR) with hue, saturation and value shifted (see `HsvJitter`)."""
    shifted = cv2.cvtColor(image, cv2.COLOR_BGR2HSV).astype(np.int64) + shift
    shifted[..., 0] %= 180
    return cv2.cvtColor(np.clip(shifted, 0, 255).astype(np.uint8), cv2.COLOR_HSV2BGR)


@MODELS.register_module()
class UploadingPreProcessor(SegDataPreProcessor):  # type: ignore[misc]
    """Brings a batch to a GPU; stock waits for each photo, its colours and its mask."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._turns_colours = bool(settings.get("bgr_to_rgb") or settings.get("rgb_to_bgr"))
        self._channel_conversion = False  # stock sends the order of the channels with each photo

    def cast_data(self, data: Any) -> Any:
        """A part of a batch on the device of the network; photos [3, H, W] become RGB."""
        if isinstance(data, Tensor):
            pixels = to_device(data, self.device)
            return pixels.flip(-3) if self._turns_colours else pixels
        if (masks := getattr(data, "gt_sem_seg", None)) is not None:
            masks.data = to_device(masks.data, self.device)
            return data
        return super().cast_data(data)
