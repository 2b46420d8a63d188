"""Sliding-window, multi-scale and mirrored inference.

Eq. 25 and 26 of docs/methods/weakclip.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from wsss.cams.maps import resize_maps
from wsss.clip.images import input_size, resize_image
from wsss.clip.input import EncoderInput
from wsss.config.model import Config

Photo = UInt8[np.ndarray, "height width 3"]
Network = Callable[[Tensor], Tensor]
"""Images [B, 3, H, W], normalised, sides whole patches, to logits [B, labels, h, w] of any size."""

_TOGETHER = 8  # windows a batch; fixed, since a result must not depend on a setting of the machine


class SlidingViews:
    """Probabilities of a photo: windows are averaged as logits, views as probabilities.

    Args:
        config: clip.long_side and infer.
        inputs: the encoder's patch and normalisation.
        network: what gives logits.

    Raises:
        ValueError: the window is no multiple of the patch.
    """

    def __init__(self, config: Config, inputs: EncoderInput, network: Network) -> None:
        self._settings, self._inputs, self._network = config.infer, inputs, network
        self._long_side = config.infer.long_side or config.clip.long_side
        window, patch = config.infer.window, inputs.encoder.patch
        if window is not None and any(window % side for side in patch):
            raise ValueError(
                f"infer.window is {window}; expected a multiple of the encoder's patch "
                f"({patch[0]} x {patch[1]} pixels)"
            )

    @torch.inference_mode()
    def probabilities(
        self, photo: Photo, size: tuple[int, int], labels: Sequence[int] | None = None
    ) -> tuple[Float[Tensor, "labels rows columns"], Float[Tensor, "labels rows columns"]]:
        """Softmax at scale 1, and its mean over all scales and mirroring.

        Args:
            photo: RGB.
            size: height and width of the result.
            labels: those that compete; None for all.
        """
        single = self._share(photo, 1.0, size, labels, mirrored=False)
        total = torch.zeros_like(single)
        for scale in self._settings.scales:
            straight = (
                single if scale == 1.0 else self._share(photo, scale, size, labels, mirrored=False)
            )
            total += straight + self._share(photo, scale, size, labels, mirrored=True)
        return single, total / (2 * len(self._settings.scales))

    def _share(
        self,
        photo: Photo,
        scale: float,
        size: tuple[int, int],
        labels: Sequence[int] | None,
        *,
        mirrored: bool,
    ) -> Float[Tensor, "labels rows columns"]:
        pixels = self.pixels(photo, scale).to(self._inputs.encoder.device)
        pixels = pixels.flip(-1) if mirrored else pixels
        windows = (self._settings.window, self._settings.stride)
        patch = self._inputs.encoder.patch
        logits = slide(self._network, pixels, *windows, patch, labels)
        share = resize_maps(logits, size).softmax(0)
        return share.flip(-1) if mirrored else share

    def pixels(self, photo: Photo, scale: float) -> Float[Tensor, "3 rows columns"]:
        """The photo at a scale; ``aligned``: whole patches; ``floored``: whole pixels (`slide`)."""
        patch = self._inputs.encoder.patch
        height, width = (max(1, round(side * scale)) for side in self._base(photo))
        if self._settings.grid == "aligned":
            return self._inputs.normalize(resize_image(photo, input_size(height, width, patch)))
        height, width = max(height, patch[0]), max(width, patch[1])
        resized = Image.fromarray(photo).resize((width, height), Image.Resampling.BILINEAR)
        return self._inputs.normalize(np.asarray(resized))

    def _base(self, photo: Photo) -> tuple[float, float]:
        """Height and width at scale 1."""
        if self._inputs.square is not None:
            return float(self._inputs.square), float(self._inputs.square)
        height, width = photo.shape[:2]
        factor = 1.0
        if self._settings.short_side is not None:
            factor = self._settings.short_side / min(height, width)
        elif self._long_side is not None:
            factor = self._long_side / max(height, width)
        return height * factor, width * factor


def slide(
    network: Network,
    pixels: Float[Tensor, "3 rows columns"],
    window: int | None,
    stride: int | None,
    patch: tuple[int, int],
    labels: Sequence[int] | None = None,
    *,
    together: int = _TOGETHER,
) -> Float[Tensor, "labels height width"]:
    """Logits of an image, those of overlapping windows averaged.

    An image that is no larger than the window is looked at as it is. What is left of a patch at its
    end is cut off and the logits are stretched over it, as CLIP's first convolution does.

    Args:
        network: see the module.
        pixels: normalised.
        window: side, pixels; None for the whole image.
        stride: between windows, which are moved back inside at the far edges; None for the window.
        patch: of the encoder.
        labels: whose logits are kept; None for all.
        together: windows a batch.

    Returns:
        At the image's size where windows overlap, else at any size.
    """
    height, width = pixels.shape[1:]
    side = (min(window or height, height), min(window or width, width))
    step = stride or window or max(height, width)
    lines = (_starts(height, side[0], step), _starts(width, side[1], step))
    places = list(itertools.product(*lines))
    cut = (side[0] // patch[0] * patch[0], side[1] // patch[1] * patch[1])
    views = [pixels[:, top : top + cut[0], left : left + cut[1]] for top, left in places]
    found = _run(network, views, labels, together)
    if len(places) == 1:
        return next(found)
    total, count = None, pixels.new_zeros(height, width)
    for (top, left), logits in zip(places, found, strict=True):
        if total is None:
            total = pixels.new_zeros(len(logits), height, width)
        rows, columns = slice(top, top + side[0]), slice(left, left + side[1])
        total[:, rows, columns] += resize_maps(logits, side)
        count[rows, columns] += 1
    assert total is not None
    return total / count


def _run(
    network: Network, views: Sequence[Tensor], labels: Sequence[int] | None, together: int
) -> Iterator[Float[Tensor, "labels h w"]]:
    for start in range(0, len(views), together):
        logits = network(torch.stack(list(views[start : start + together])))
        yield from logits if labels is None else logits[:, list(labels)]


def _starts(length: int, side: int, step: int) -> list[int]:
    """First pixels of windows that cover a line, the last one moved back inside."""
    count = max(0, -(-(length - side) // step)) + 1
    return [min(number * step, length - side) for number in range(count)]
