"""Pixel-adaptive refinement (PAR): soft labels drawn to the edges of the image, without a CRF.

Every pixel becomes a weighted mean of 48 neighbours, again and again; weights fall with the
difference in colour and, a little, with distance (Ru et al., AFA, CVPR 2022, arXiv:2203.02664; eq.
14 and 15 of docs/methods/weclip.md). They depend on the image alone and are computed once for all
classes and iterations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from wsss.compute.packed_rows import to_device

DILATIONS: tuple[int, ...] = (1, 2, 4, 8, 12, 24)
ITERATIONS = 20

_TOLERANCE = 0.3
_POSITION_SHARE = 0.01
_TINY = 1e-8
_NOTHING = 1e-20  # smaller weights and scores are 0: denormal numbers make a CPU many times slower
_STEPS = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0))


def par_weights(
    images: Float[Tensor, "batch channels height width"], dilations: Sequence[int] = DILATIONS
) -> Float[Tensor, "batch neighbours height width"]:
    """Weights of the eight neighbours at every dilation.

    The differences in colour are divided by the deviation of the neighbourhood, so the scale of the
    image does not matter. As published, the part for the position is added with weight 0.01 and the
    weights of a pixel sum to 1.01, which no arg max sees.

    Args:
        images: any scale; on flat neighbourhoods all neighbours count alike.
        dilations: distances in pixels, largest last or in any order.

    Raises:
        ValueError: there is no dilation, or one below 1.
    """
    _check(dilations)
    size = (images.shape[-2], images.shape[-1])
    count = len(_STEPS) * len(dilations)
    if images.is_cuda:
        neighbours = _on_gpu(size, tuple(dilations), images.device)
        pixels = images.flatten(2).unsqueeze(-1)  # (B, C, H, W) -> (B, C, H W, 1)
        near = images.flatten(2)[:, :, neighbours.places]  # (B, C, H W, n)
        # The square of the length over the channels is their mean square.
        scale = (near.std(-1, keepdim=True) + _TINY) * (_TOLERANCE * math.sqrt(images.shape[1]))
        length = torch.linalg.vector_norm(near.sub_(pixels).div_(scale), dim=1)
        # Minus its square, in one pass and in the same memory.
        torch.addcmul(length.new_zeros(()), length, length, value=-1, out=length)
        colour = length.softmax(-1).add_(neighbours.position)
        # (B, H W, n) -> (B, n, H, W), in the memory that `_refined_on_gpu` reads
        return colour.transpose(1, 2).unflatten(-1, size)
    padded = _pad(images, max(dilations))
    # Neighbour by neighbour: (B, C, n, H, W), all of them at once, would not fit the cache.
    mean, variance = torch.zeros_like(images), torch.zeros_like(images)
    for near in _neighbours(padded, size, dilations):
        mean += near
    mean /= count
    for near in _neighbours(padded, size, dilations):
        gap = near - mean
        variance.addcmul_(gap, gap)
    inverse = 1 / (((variance / (count - 1)).sqrt_() + _TINY) * _TOLERANCE)
    colour = images.new_empty(len(images), count, *size)
    for index, near in enumerate(_neighbours(padded, size, dilations)):
        gap = (near - images).mul_(inverse)
        torch.mean(gap.square_(), dim=1, out=colour[:, index])
    colour = colour.neg_().softmax(1)
    colour.add_(_position(dilations))
    return torch.threshold_(colour, _NOTHING, 0.0)


def par_refine(
    masks: Float[Tensor, "batch classes height width"],
    weights: Float[Tensor, "batch neighbours height width"],
    *,
    iterations: int = ITERATIONS,
    dilations: Sequence[int] = DILATIONS,
) -> Float[Tensor, "batch classes height width"]:
    """Average soft labels with the weights of `par_weights`, ``iterations`` times.

    Classes do not meet: rows of padding (zeros) may stand for classes that an image lacks.

    Args:
        masks: class scores, background included.
        weights: of the same size and dilations.
        iterations: 20 as published.
        dilations: those of the weights.

    Raises:
        ValueError: the weights are of other dilations.
    """
    _check(dilations)
    if weights.shape[1] != len(_STEPS) * len(dilations):
        raise ValueError(
            f"{weights.shape[1]} neighbours, but dilations {tuple(dilations)} have "
            f"{len(_STEPS) * len(dilations)}"
        )
    size = (masks.shape[-2], masks.shape[-1])
    if masks.is_cuda:
        return _refined_on_gpu(masks, weights, iterations, tuple(dilations))
    for _ in range(iterations):
        padded = _pad(masks, max(dilations))
        masks = torch.zeros_like(masks)
        for index, near in enumerate(_neighbours(padded, size, dilations)):
            masks.addcmul_(near, weights[:, index : index + 1])
        masks = torch.threshold_(masks, _NOTHING, 0.0)
    return masks


def pixel_adaptive_refinement(
    images: Float[Tensor, "batch channels rows columns"],
    masks: Float[Tensor, "batch classes height width"],
    *,
    iterations: int = ITERATIONS,
    dilations: Sequence[int] = DILATIONS,
) -> Float[Tensor, "batch classes height width"]:
    """`par_weights` and `par_refine`; images are resized to the masks, corners aligned."""
    size = (masks.shape[-2], masks.shape[-1])
    if images.shape[-2:] != size:
        images = F.interpolate(images, size, mode="bilinear", align_corners=True)
    weights = par_weights(images, dilations)
    return par_refine(masks, weights, iterations=iterations, dilations=dilations)


def _refined_on_gpu(
    masks: Float[Tensor, "batch classes height width"],
    weights: Float[Tensor, "batch neighbours height width"],
    iterations: int,
    dilations: tuple[int, ...],
) -> Float[Tensor, "batch classes height width"]:
    """`par_refine` with one launch per iteration: every pixel is a weighted bag of neighbours."""
    batch, classes, height, width = masks.shape
    pixels = height * width
    places = _on_gpu((height, width), dilations, masks.device).places
    offsets = torch.arange(0, batch * pixels, pixels, dtype=torch.int32, device=masks.device)
    # (H W, n) -> (B, H W, n): rows of a table of all pixels of the batch
    rows = (places + offsets.view(-1, 1, 1)).flatten()
    neighbours = places.shape[1]
    bags = torch.arange(0, rows.numel(), neighbours, dtype=torch.int32, device=masks.device)
    # (B, n, H, W) -> (B, H W, n)
    shares = weights.flatten(2).transpose(1, 2).flatten()
    # (B, K, H, W) -> (B, H W, K)
    table = masks.flatten(2).transpose(1, 2).reshape(batch * pixels, classes)
    for _ in range(iterations):
        table = torch.embedding_bag(table, rows, bags, False, 0, False, shares)[0]
    # (B, H W, K) -> (B, K, H, W)
    return table.view(batch, height, width, classes).permute(0, 3, 1, 2).contiguous()


class _Neighbours(NamedTuple):
    """The neighbours of each pixel of a size, on a GPU."""

    places: Int[Tensor, "pixels neighbours"]
    """The pixel that each of them is, in row-major order; the border repeats."""
    position: Float[Tensor, " neighbours"]
    """See `_position`."""


_last: dict[tuple[tuple[int, int], tuple[int, ...]], _Neighbours] = {}
"""Those of the last size: the crops of a training have one, so that its steps upload nothing."""


def _on_gpu(size: tuple[int, int], dilations: tuple[int, ...], device: torch.device) -> _Neighbours:
    held = _last.get((size, dilations))
    if held is not None and held.places.device == device:
        return held
    height, width = size
    _last.clear()  # before the next ones take memory
    steps = torch.tensor([(d * y, d * x) for d in dilations for y, x in _STEPS])
    rows = (torch.arange(height) + steps[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width) + steps[:, 1:]).clamp(0, width - 1)
    sides = to_device(torch.cat([width * rows, columns], dim=1).int(), device)
    # (n, H, 1) + (n, 1, W) -> (H W, n)
    places = (sides[:, :height, None] + sides[:, None, height:]).flatten(1).T.contiguous()
    position = to_device(_position(dilations).flatten(), device)
    _last[size, dilations] = held = _Neighbours(places, position)
    return held


def _position(dilations: Sequence[int]) -> Float[Tensor, "1 neighbours 1 1"]:
    """The weights of the neighbours by their distance alone, of which the sum is 0.01."""
    far = [d * math.hypot(*step) for d in dilations for step in _STEPS]
    distance = torch.tensor(far, dtype=torch.float32)
    weights = -((distance / (distance.std() + _TINY) / _TOLERANCE) ** 2)
    return _POSITION_SHARE * weights.softmax(0).view(1, -1, 1, 1)


def _pad(maps: Tensor, reach: int) -> Tensor:
    """Repeat the border outwards."""
    return F.pad(maps, (reach,) * 4, mode="replicate")


def _neighbours(
    padded: Tensor, size: tuple[int, int], dilations: Sequence[int]
) -> Iterator[Float[Tensor, "batch channels height width"]]:
    """Views of the padded maps, shifted to each neighbour."""
    reach, (height, width) = max(dilations), size
    for dilation in dilations:
        for down, right in _STEPS:
            y, x = reach + down * dilation, reach + right * dilation
            yield padded[..., y : y + height, x : x + width]


def _check(dilations: Sequence[int]) -> None:
    if not dilations or min(dilations) < 1:
        raise ValueError(f"dilations must be positive pixels; got {tuple(dilations)}")
