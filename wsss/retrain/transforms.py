"""Random scaling relative to an image's own size, as a transform of mmsegmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wsss.retrain.mm import TRANSFORMS, BaseTransform, imresize


@TRANSFORMS.register_module()
class RandomOwnScale(BaseTransform):  # type: ignore[misc]
    """Scale image (bilinear) and mask (nearest) by one factor, drawn evenly from a range.

    Stock ``RandomResize`` scales to a fixed frame first, which would blow small images up.

    Args:
        ratio_range: lowest and highest factor.
    """

    def __init__(self, ratio_range: Sequence[float]) -> None:
        self.low, self.high = ratio_range

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replace ``img`` [H, W, 3] and ``gt_seg_map`` [H, W] by their scaled versions."""
        factor = np.random.uniform(self.low, self.high)
        height, width = results["img"].shape[:2]
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        results["img"] = imresize(results["img"], size, interpolation="bilinear")
        results["gt_seg_map"] = imresize(results["gt_seg_map"], size, interpolation="nearest")
        results["img_shape"] = results["img"].shape[:2]
        return results
