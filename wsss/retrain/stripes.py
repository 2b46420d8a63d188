"""Class probabilities of a large photo in stripes of rows.

It computes what `wsss.refine.inference.MultiScaleInference` computes for segmenters, up to the last
bits, and holds the probabilities of one stripe instead of those of the photo.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from wsss.refine.inference import window_starts
from wsss.retrain.rows import Logits, Pixels, Resized, Rows, Window, Windows

_STRIPE_BYTES = 16 << 20  # of the logits of a stripe at the largest scale, in float32


class StripedInference:
    """Probabilities of photos, averaged over scales and mirroring, in stripes of rows.

    Args:
        network: from images to logits on the grid of the network's head.
        normalise: from levels in 0 … 255 to what the network takes.
        align_corners: how the head enlarges its logits.
        scales: each is also mirrored.
        average: what is averaged.
        patch: height and width of the network's patches, pixels.
        window: side of a window that slides over larger images, pixels; None for whole images.
        stride: pixels between windows; None for the window's side.
        smallest: images are padded with zeros to whole patches and at least this side, pixels.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        normalise: Callable[[Tensor], Tensor],
        *,
        align_corners: bool,
        scales: Sequence[float],
        average: Literal["logits", "probabilities"],
        patch: tuple[int, int],
        window: int | None,
        stride: int | None,
        smallest: int,
    ) -> None:
        self._network, self._normalise, self._corners = network, normalise, align_corners
        self._scales, self._average, self._patch = scales, average, patch
        self._window, self._stride, self._smallest = window, stride, smallest

    @torch.inference_mode()
    def stripes(
        self, photo: UInt8[Tensor, "height width 3"], labels: int, *, multi: bool
    ) -> Iterator[tuple[slice, Float[Tensor, "labels rows width"]]]:
        """Rows of the photo, from the top to the bottom, and the probabilities there.

        Args:
            photo: RGB, on the network's device.
            multi: the mean over all scales and mirroring; otherwise one pass at scale 1.
        """
        height, width = size = (photo.shape[0], photo.shape[1])
        scales = self._scales if multi else (1.0,)
        views = [
            (Resized(self._logits(photo, scale, mirrored), size), mirrored)
            for scale in scales
            for mirrored in ((False, True) if multi else (False,))
        ]
        step = max(1, int(_STRIPE_BYTES / (4 * labels * width * max(1.0, *scales) ** 2)))
        for first in range(0, height, step):
            rows = slice(first, min(first + step, height))
            mean: Tensor | None = None
            for view, mirrored in views:
                maps = view.rows(rows.start, rows.stop)
                if self._average == "probabilities":
                    maps = maps.softmax(1)
                maps = maps.flip(3) if mirrored else maps
                mean = maps if mean is None else mean.add_(maps)
            assert mean is not None, "there is a scale"
            mean = mean.div_(len(views))
            yield rows, (mean.softmax(1) if self._average == "logits" else mean)[0]

    def _logits(self, photo: Tensor, scale: float, mirrored: bool) -> Rows:
        """The logits at a scale, of its size."""
        pixels = Pixels(photo, mirrored)
        height, width = (max(1, int(side * scale + 0.5)) for side in pixels.size)
        view = Resized(pixels, (height, width))
        padded = [
            max(side, self._smallest) + -max(side, self._smallest) % patch
            for side, patch in zip((height, width), self._patch, strict=True)
        ]
        side = (
            min(self._window or padded[0], padded[0]),
            min(self._window or padded[1], padded[1]),
        )
        step = self._stride or self._window or max(padded)
        lefts = window_starts(padded[1], side[1], step)

        def band(top: int) -> list[Window]:
            levels = self._normalise(view.rows(top, min(top + side[0], height)))
            levels = F.pad(levels, (0, padded[1] - width, 0, side[0] - levels.shape[2]))
            crops = ((left, levels[..., left : left + side[1]]) for left in lefts)
            return [
                Window(
                    left, Resized(Logits(self._network(crop)), side, align_corners=self._corners)
                )
                for left, crop in crops
            ]

        return Windows((height, width), window_starts(padded[0], side[0], step), side[0], band)
