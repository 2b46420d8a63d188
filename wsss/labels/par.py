"""Pixel-adaptive refinement (PAR): soft labels drawn to the edges of the image, without a CRF.

Every pixel becomes a weighted mean of 48 neighbours, again and again; weights fall with the
difference in colour and, a little, with distance (Ru et al., AFA, CVPR 2022, arXiv:2203.02664; eq.
14 and 15 of docs/methods/weclip.md). They depend on the image alone and are computed once for all
classes and iterations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

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
    padded = _pad(images, max(dilations))
    count = len(_STEPS) * len(dilations)
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
    far = [d * math.hypot(*step) for d in dilations for step in _STEPS]
    distance = torch.tensor(far, dtype=images.dtype, device=images.device)
    position = -((distance / (distance.std() + _TINY) / _TOLERANCE) ** 2)
    colour.add_(_POSITION_SHARE * position.softmax(0).view(1, -1, 1, 1))
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
