"""Rows of all images of a batch behind each other: their places, without a wait for a GPU.

Images have different numbers of rows (classes). The host knows the image of each row from the
batch's lists; what follows from it, sizes and places, is computed there and sent. Nothing has to be
counted on the GPU and read back.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Int, Shaped
from torch import Tensor


def to_device(tensor: Shaped[Tensor, "*shape"], device: torch.device) -> Shaped[Tensor, "*shape"]:
    """The tensor on a device, without a wait for what is computed there.

    For a GPU it is copied to memory from which that fetches while the host goes on.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class Slots(NamedTuple):
    """Where packed rows lie in a tensor padded to the most rows of an image."""

    image: Int[Tensor, " rows"]
    row: Int[Tensor, " rows"]
    """Of the row among those of its image."""
    most: int
    """Rows of the image with the most."""


def padded_slots(image_index: Int[Tensor, " rows"], batch: int, device: torch.device) -> Slots:
    """The places of packed rows.

    Args:
        image_index: the image of each row, in ascending order; best on the CPU, since the host must
            know it.
        batch: number of images.
        device: of the places.
    """
    images = image_index.cpu()
    counts = torch.bincount(images, minlength=batch)
    rows = torch.arange(len(images)) - (counts.cumsum(0) - counts)[images]
    image, row = to_device(torch.stack([images, rows]), device)
    return Slots(image, row, int(counts.max()) if batch else 0)
