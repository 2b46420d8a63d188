"""DINOv2's positional table at another grid, as its release resizes it.

The models without registers hand the resize a *factor*, ``(rows + 0.1) / 37``, and coordinates step
by one over it, without antialias. Those with registers hand it the size, with antialias. timm
resizes every table with antialias: on a smooth random table that differs by 4.8 % (root mean
square).
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_OFFSET = 0.1  # of the release, so that the size is not one too small by rounding


def resize_positions(
    table: Float[Tensor, "old_patches width"],
    old_grid: tuple[int, int],
    grid: tuple[int, int],
    *,
    registers: bool,
) -> Float[Tensor, "patches width"]:
    """Resize a positional table bicubically (eq. 4 of docs/methods/weclip-plus.md).

    Args:
        table: a row for each patch of ``old_grid``, in row-major order.
        old_grid: rows and columns that the table was learned for.
        grid: new rows and columns.
        registers: whether the model has registers.

    Returns:
        The table for ``grid``, float32; unchanged where the grid is the old one.
    """
    table = table.float()
    if grid == old_grid:
        return table
    # (old_h old_w, D) -> (1, D, old_h, old_w) -> (1, D, h, w) -> (h w, D)
    image = table.T.reshape(1, -1, *old_grid)
    if registers:
        image = F.interpolate(image, size=grid, mode="bicubic", antialias=True)
    else:
        factors = tuple((new + _OFFSET) / old for new, old in zip(grid, old_grid, strict=True))
        image = F.interpolate(image, scale_factor=factors, mode="bicubic")
    return image.reshape(image.shape[1], -1).T
