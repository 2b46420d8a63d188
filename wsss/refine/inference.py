"""Multi-scale inference: from images to label probabilities, for refiners and segmenters.

Published methods differ in how they round sizes, in what they average (logits or probabilities),
and on which grid. Each difference is a parameter here:

| | scales are made from | averaged | on the grid of | remainder of a patch |
|---|---|---|---|---|
| WeCLIP (1) | the image of scale 1 | logits | scale 1 | cut off |
| ExCEL (2) | the photo | logits | the output (COCO: 0.2 of it) | cut off |
| WeakCLIP (3) | the photo | probabilities | the output | cut off |
| segmenters | `wsss.retrain.segmenter` | either | the output | padded |

(1) eq. 23 of docs/methods/weclip.md; (2) eq. 23 of docs/methods/excel.md; (3) eq. 25 and 26 of
docs/methods/weakclip.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from wsss.compute.packed_rows import to_device
from wsss.config.infer import window_problem

Network = Callable[[Tensor], Tensor]
"""Images [B, 3, H, W], normalised, sides whole patches, to logits [B, labels, h, w] of any size."""

_WINDOW_BATCH = 8  # fixed, since a result must not depend on a setting of the machine


def check_window(window: int | None, patch: tuple[int, int], smallest: int | None = None) -> None:
    """Refuse a window that does not suit a network.

    Args:
        window: side, pixels; None: no windows.
        patch: height and width of the network's patches, pixels.
        smallest: as of `MultiScaleInference`, which only segmenters have.

    Raises:
        ValueError: it is no multiple of the patch, or too small.
    """
    key = "predict.window" if smallest else "infer.window"
    if problem := window_problem(key, window, patch, smallest or 1):
        raise ValueError(problem)


class MultiScaleInference:
    """Probabilities of images, averaged over scales and mirroring.

    Args:
        network: gives logits.
        scales: each is also mirrored.
        average: what is averaged.
        grid: where it is averaged: at the size of the ``output``, or where ``scale_1`` has logits.
        share: of the sides of the output, with the grid ``output``; for the mean alone.
        patch: height and width of the network's patches, pixels.
        mirror_first: False uses scale 1 without mirroring.
        mirror_in_batch: images and their mirror images enter the network together. It moves the
            last bit on a CPU, and what dropout draws.
        window: side of a window that slides over larger images, pixels; None for whole images.
        stride: pixels between windows; None for the window's side.
        window_batch: windows per call of the network, at least one of each image.
        smallest: pad images with zeros to whole patches and at least this side, and drop the logits
            of the padding (the network gives one for each pixel); None cuts off what is left of a
            patch and stretches the logits over it, as CLIP's first convolution does.

    Raises:
        ValueError: the window is no multiple of the patch.
    """

    def __init__(
        self,
        network: Network,
        *,
        scales: Sequence[float],
        average: Literal["logits", "probabilities"],
        grid: Literal["scale_1", "output"],
        patch: tuple[int, int],
        share: float = 1.0,
        mirror_first: bool = True,
        mirror_in_batch: bool = True,
        window: int | None = None,
        stride: int | None = None,
        window_batch: int = _WINDOW_BATCH,
        smallest: int | None = None,
    ) -> None:
        check_window(window, patch, smallest)
        self._network, self._scales, self._patch = network, scales, patch
        self._average, self._grid, self._share = average, grid, share
        self._mirror_first, self._mirror_in_batch = mirror_first, mirror_in_batch
        self._window, self._stride, self._window_batch = window, stride, window_batch
        self._smallest = smallest

    @torch.inference_mode()
    def probabilities(
        self,
        view: Callable[[float], Float[Tensor, "batch 3 _ _"]],
        size: tuple[int, int] | None = None,
        labels: Sequence[int] | None = None,
    ) -> tuple[Float[Tensor, "batch labels rows columns"], Float[Tensor, "batch labels _ _"]]:
        """Softmax at scale 1 without mirroring, and its mean over all scales and mirroring.

        Args:
            view: the images at a scale, normalised.
            size: height and width of the result; None for the size of the logits at scale 1.
            labels: those that compete; None for all.
        """
        output = None
        if size is not None and self._grid == "output":
            output = (max(1, int(self._share * size[0])), max(1, int(self._share * size[1])))
        logits = self._pair(view(1.0), labels)
        first = self._averaged(logits, output)
        grid = (first[0].shape[2], first[0].shape[3])
        total = torch.zeros_like(first[0])
        for scale in self._scales:
            maps, mirrored = first
            if scale != 1.0:
                maps, mirrored = self._averaged(self._pair(view(scale), labels), output)
            if scale == 1.0 and not self._mirror_first:
                mirrored = maps
            total += _resize((maps + mirrored) / 2, grid)
        mean = total / len(self._scales)
        single = first[0]
        if output not in (None, size):  # the share is of the mean alone
            single = self._averaged(logits, size)[0]
        if size is not None:
            single, mean = _resize(single, size), _resize(mean, size)
        if self._average == "logits":
            single, mean = _probs(single), _probs(mean)
        return single, mean

    @torch.inference_mode()
    def single(
        self, view: Callable[[float], Float[Tensor, "batch 3 _ _"]], size: tuple[int, int]
    ) -> Float[Tensor, "batch labels rows columns"]:
        """Softmax at scale 1 without mirroring, from a batch of its own (see ``mirror_in_batch``).

        Arguments as for `probabilities`.
        """
        return _probs(_resize(self._logits(view(1.0), None), size))

    def _pair(self, images: Tensor, labels: Sequence[int] | None) -> tuple[Tensor, Tensor]:
        """Logits of images and of their mirror images."""
        return with_mirror(
            lambda batch: self._logits(batch, labels), images, in_batch=self._mirror_in_batch
        )

    def _averaged(
        self, logits: tuple[Tensor, Tensor], size: tuple[int, int] | None
    ) -> tuple[Float[Tensor, "batch labels rows columns"], Float[Tensor, "batch labels _ _"]]:
        """What is averaged, from the logits of `_pair`; the second is mirrored back."""
        straight, mirrored = logits
        if size is not None:
            straight, mirrored = _resize(straight, size), _resize(mirrored, size)
        if self._average == "probabilities":
            straight, mirrored = _probs(straight), _probs(mirrored)
        return straight, mirrored.flip(-1)

    def _logits(
        self, images: Float[Tensor, "batch 3 height width"], labels: Sequence[int] | None
    ) -> Float[Tensor, "batch labels rows columns"]:
        height, width = images.shape[2:]
        if self._smallest is not None:
            below, right = (
                max(side, self._smallest) + -max(side, self._smallest) % patch - side
                for side, patch in zip((height, width), self._patch, strict=True)
            )
            images = F.pad(images, (0, right, 0, below))
        logits = slide(
            self._network,
            images,
            self._window,
            self._stride,
            self._patch,
            labels,
            batch=self._window_batch,
        )
        return logits if self._smallest is None else logits[:, :, :height, :width]


def with_mirror(
    network: Network, images: Float[Tensor, "batch 3 height width"], *, in_batch: bool = True
) -> tuple[Float[Tensor, "batch labels rows columns"], Float[Tensor, "batch labels rows columns"]]:
    """Logits of images and of their mirror images, computed in one batch or in two."""
    if in_batch:
        straight, mirrored = network(torch.cat([images, images.flip(-1)])).chunk(2)
        return straight, mirrored
    return network(images), network(images.flip(-1))


def slide(
    network: Network,
    images: Float[Tensor, "batch 3 height width"],
    window: int | None,
    stride: int | None,
    patch: tuple[int, int],
    labels: Sequence[int] | None = None,
    *,
    batch: int = _WINDOW_BATCH,
) -> Float[Tensor, "batch labels rows columns"]:
    """Logits of images; those of overlapping windows are averaged.

    An image enters the network unpadded, and whole where it is no larger than the window. A
    remainder of a patch at the end of a window is cut off, and the logits are stretched over it.

    Args:
        network: see the module.
        images: normalised.
        window: side, pixels; None for the whole image.
        stride: between windows, which are moved back inside at the far edges; None for the window.
        labels: whose logits are used; None for all.
        batch: windows per call of the network, at least one of each image.

    Returns:
        With a window at the size of the images, as mmsegmentation does; else at any size.
    """
    count, _, height, width = images.shape
    side = (min(window or height, height), min(window or width, width))
    step = stride or window or max(height, width)
    tops, lefts = window_starts(height, side[0], step), window_starts(width, side[1], step)
    corners = list(itertools.product(tops, lefts))
    rows, columns = (length // p * p for length, p in zip(side, patch, strict=True))

    index = None
    if labels is not None:
        index = to_device(torch.tensor(labels, dtype=torch.long), images.device)

    def logits_at(some: Sequence[tuple[int, int]]) -> Tensor:
        crops = [images[:, :, top : top + rows, left : left + columns] for top, left in some]
        logits = network(torch.cat(crops))
        return logits if index is None else logits[:, index]

    if window is None:
        return logits_at(corners)
    per_call = max(1, batch // count)
    total, times = images.new_zeros(0), images.new_zeros(height, width)
    for start in range(0, len(corners), per_call):
        some = corners[start : start + per_call]
        # (windows x B, L, h, w) -> one (B, L, h, w) per window
        for (top, left), logits in zip(some, logits_at(some).split(count), strict=True):
            if not len(total):
                total = images.new_zeros(count, logits.shape[1], height, width)
            area = (..., slice(top, top + side[0]), slice(left, left + side[1]))
            total[area] += _resize(logits, side)
            times[area] += 1
    return total / times


def cut_to(
    images: Float[Tensor, "*batch 3 height width"], unit: tuple[int, int]
) -> Float[Tensor, "*batch 3 rows columns"]:
    """Images without what exceeds multiples of a unit, at the bottom and on the right."""
    rows, columns = (side // u * u for side, u in zip(images.shape[-2:], unit, strict=True))
    return images[..., :rows, :columns]


def _probs(logits: Tensor) -> Float[Tensor, "batch labels rows columns"]:
    return logits.softmax(dim=1)


def _resize(
    maps: Float[Tensor, "batch channels _ _"], size: tuple[int, int]
) -> Float[Tensor, "batch channels _ _"]:
    if tuple(maps.shape[2:]) == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def window_starts(length: int, side: int, step: int) -> list[int]:
    """First pixels of windows that cover a line, the last one moved back inside."""
    count = max(0, -(-(length - side) // step)) + 1
    return [min(index * step, length - side) for index in range(count)]
