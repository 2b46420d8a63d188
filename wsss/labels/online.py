"""Pseudo labels made while a refiner trains: class maps, background, PAR, arg max (WeCLIP).

Eq. 13-16 of docs/methods/weclip.md. A whole batch at once: images have different classes, so their
score stacks are padded with zeros, which PAR leaves zero and which never win.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from wsss.cams.maps import resize_maps
from wsss.compute.packed_rows import padded_slots, to_device
from wsss.labels.ignore import IGNORED
from wsss.labels.par import pixel_adaptive_refinement


@dataclass(frozen=True)
class IgnoreBand:
    """Range of the largest class score in which a pixel is ignored."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1:
            raise ValueError(f"need 0 <= low < high <= 1; got {self.low} and {self.high}")


def score_stacks(
    maps: Float[Tensor, "rows grid_height grid_width"],
    image_index: Int[Tensor, " rows"],
    batch: int,
    size: tuple[int, int],
    *,
    power: float = 1.0,
) -> Float[Tensor, "batch labels height width"]:
    """Class maps at image size behind their background ``(1 - max)^power``.

    Args:
        maps: of all images, in 0..1; rows in the order of their images.
        image_index: the image of each row, in ascending order; best on the CPU.
        batch: number of images; an image may have no row.
        size: height and width of the labels.
        power: of the background.

    Returns:
        Background first, then the maps of the image in their order, then zeros; labels is one more
        than the most classes of an image.
    """
    if len(image_index) == 0:
        return maps.new_ones(batch, 1, *size)
    image, row, most = padded_slots(image_index, batch, maps.device)
    stacks = maps.new_zeros(batch, 1 + most, *size)
    stacks[:, 1:][image, row] = resize_maps(maps, size)
    background = (1 - stacks[:, 1:].amax(1)).clamp_min_(0)
    stacks[:, 0] = background if power == 1 else background**power
    return stacks


def online_labels(
    images: Float[Tensor, "batch 3 rows columns"],
    maps: Float[Tensor, "rows_of_maps grid_height grid_width"],
    image_index: Int[Tensor, " rows_of_maps"],
    classes: Int[Tensor, " rows_of_maps"],
    size: tuple[int, int],
    *,
    power: float = 1.0,
    valid: Bool[Tensor, "batch height width"] | None = None,
    ignore_band: IgnoreBand | None = None,
) -> UInt8[Tensor, "batch height width"]:
    """Labels of a batch: 0 background, class + 1, 255 ignored.

    Args:
        images: of the batch, for PAR.
        maps: class maps in 0..1, see `score_stacks`.
        image_index: the image of each map, in ascending order; best on the CPU.
        classes: the class of each map, 0-based; best on the CPU.
        size: height and width of the labels.
        power: of the background.
        valid: 0 in padding, which becomes 255. None, as published: padding is learned from.
        ignore_band: class scores after PAR whose pixels become 255. None, as published: every
            pixel has a label.
    """
    batch = len(images)
    stacks = score_stacks(maps, image_index, batch, size, power=power)
    scores = pixel_adaptive_refinement(images, stacks)
    here = torch.device("cpu")  # a table of a few bytes, which the host knows
    values = torch.zeros(scores.shape[:2], dtype=torch.uint8)
    image, row, _ = padded_slots(image_index, batch, here)
    values[image, 1 + row] = (classes.cpu() + 1).to(torch.uint8)
    values = to_device(values, scores.device)
    winner = scores.argmax(1)  # (B, H, W)
    # (B, labels) indexed by (B, H W) -> (B, H, W)
    labels = values.gather(1, winner.flatten(1)).view(winner.shape)
    if ignore_band is not None and scores.shape[1] > 1:
        largest = scores[:, 1:].amax(1)
        uncertain = (largest > ignore_band.low) & (largest < ignore_band.high)
        labels = labels.masked_fill(uncertain, IGNORED)
    if valid is not None:
        labels = torch.where(valid, labels, IGNORED)
    return labels
