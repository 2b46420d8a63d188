"""The positional table at another grid."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Rounding = Literal["float32", "float16"]


def resize_positions(
    table: Float[Tensor, "old_tokens width"],
    old_grid: tuple[int, int],
    grid: tuple[int, int],
    rounding: Rounding = "float32",
) -> Float[Tensor, "tokens width"]:
    """Resize the patch rows of a positional table bilinearly; a class row stays.

    Eq. 2 of docs/methods/clip-es.md.

    Args:
        table: one row for the class token, if there is one, then ``old_grid`` in row-major order.
        old_grid: rows and columns that the table was learned for.
        grid: new rows and columns.
        rounding: ``float16`` rounds the result to half precision and back, as released CLIP-ES and
            WeCLIP do even on the CPU (moves features by 3e-3 and CAMs by up to 1e-3).

    Returns:
        The table for ``grid``, float32.
    """
    table = table.float()
    others = len(table) - old_grid[0] * old_grid[1]
    other_rows, patches = table[:others], table[others:]
    if grid != old_grid:
        # (old_h * old_w, D) -> (1, D, old_h, old_w) -> (1, D, h, w) -> (h * w, D)
        image = patches.T.reshape(1, -1, *old_grid)
        image = F.interpolate(image, size=grid, mode="bilinear", align_corners=False)
        patches = image.reshape(image.shape[1], -1).T
    resized = torch.cat([other_rows, patches])
    return resized.half().float() if rounding == "float16" else resized
