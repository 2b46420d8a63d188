"""CAMs of several views of a photo, at other scales and mirrored, averaged before they are scaled.

Eq. 26 of docs/methods/clip-es.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wsss.cams.maps import resize_maps

Classes = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Evidence:
    """What a CAM source says of a batch before its maps are scaled, packed like `BatchCams`."""

    image_index: Int[Tensor, " rows"]
    """The image of each row; on the CPU."""
    maps: Float[Tensor, "rows height width"]
    """Any values."""
    unit: float
    """Times this, values of grids of different size compare."""
    class_token: Float[Tensor, " rows"] | None
    """The value of the class token, where the source has one."""
    probabilities: Float[Tensor, " rows"]
    """Of the class on the image."""
    attention: Float[Tensor, "batch tokens tokens"] | None
    """Mean attention for the affinity; None without."""
    features: Float[Tensor, "batch patches embed_dim"] | None = None
    """Patches in the space of the texts; None where no affinity needs them."""


Source = Callable[[Float[Tensor, "batch 3 height width"], Classes, int, bool], Evidence]
"""Evidence in images of one size for their classes, with the attention of so many last blocks, and
perhaps with the features."""


def fused_evidence(
    source: Source,
    images: Sequence[Float[Tensor, "batch 3 _ _"]],
    classes: Classes,
    *,
    base: int = 0,
    flip: bool = False,
    attention_blocks: int = 0,
    features: bool = False,
) -> Evidence:
    """The mean evidence of all views, on the grid of the base scale.

    Views of equal size, the images of a batch and their mirror images, share a pass. Probabilities,
    attention and features are those of the images themselves at the base scale.

    Args:
        source: gives the evidence of a view.
        images: the same images at each scale; sides are multiples of the patch.
        classes: of each image; may be empty for an image.
        base: index of the base scale.
        flip: mirror images are views, too.
        attention_blocks: number of last blocks whose attention is averaged; 0 returns none.
        features: also return the patches in the space of the texts.
    """
    run = partial(_with_mirror_images, source) if flip else source
    views = [
        run(batch, classes, *((attention_blocks, features) if index == base else (0, False)))
        for index, batch in enumerate(images)
    ]
    first = views[base]
    if len(views) == 1:
        return first
    weights = [view.unit / first.unit / len(views) for view in views]
    grid = (first.maps.shape[1], first.maps.shape[2])
    maps = [w * resize_maps(v.maps, grid) for w, v in zip(weights, views, strict=True)]
    tokens = [
        w * v.class_token for w, v in zip(weights, views, strict=True) if v.class_token is not None
    ]
    return replace(
        first,
        maps=torch.stack(maps).sum(0),
        class_token=torch.stack(tokens).sum(0) if tokens else None,
    )


def _with_mirror_images(
    source: Source,
    images: Float[Tensor, "batch 3 height width"],
    classes: Classes,
    attention_blocks: int,
    features: bool,
) -> Evidence:
    """The mean evidence of images and their mirror images."""
    pixels = torch.cat([images, images.flip(-1)])
    both = source(pixels, [*classes, *classes], attention_blocks, features)
    rows = len(both.image_index) // 2
    token, attention = both.class_token, both.attention
    return Evidence(
        image_index=both.image_index[:rows],
        maps=(both.maps[:rows] + both.maps[rows:].flip(-1)) / 2,
        unit=both.unit,
        class_token=None if token is None else (token[:rows] + token[rows:]) / 2,
        probabilities=both.probabilities[:rows],
        attention=None if attention is None else attention[: len(images)],
        features=None if both.features is None else both.features[: len(images)],
    )
