"""Tokens before the first block, and what positions mean on the patch grid of an image."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wsss.clip.position import Rounding, resize_positions
from wsss.clip.trunk.parts import Grid, Rotation, Trunk
from wsss.compute.packed_rows import to_device


class TokenEmbedding:
    """Patches, class token and positions of an image tower.

    Args:
        rounding: precision to which the resized positional table is rounded.
    """

    def __init__(self, trunk: Trunk, rounding: Rounding, device: torch.device) -> None:
        self._trunk, self._rounding, self._device = trunk, rounding, device
        self._class_token, self._positions = trunk.class_token, trunk.positions
        self.grid = trunk.grid
        """Rows and columns that the positional table is for."""
        # What belongs to the last grid is at hand. Threads share it: it is replaced as a whole.
        self._resized = ((0, 0), self._positions)
        self._turned: tuple[Grid, Rotation] | None = None

    def adapted(self, grid: Grid | None, class_token: int) -> TokenEmbedding:
        """The same with another table or class token, see `ClipEncoder.adapted`."""
        other = copy.copy(self)
        if self._class_token is not None:
            other._class_token = class_token * self._class_token
        if grid is not None:
            other._positions = resize_positions(self._positions, self.grid, grid)
            other.grid = grid
        other._resized = ((0, 0), other._positions)
        return other

    def __call__(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch tokens channels"], Grid]:
        """Tokens before the first block, and the patch grid; see `ClipEncoder.embed`."""
        trunk = self._trunk
        height, width = images.shape[-2:]
        grid = (height // trunk.patch[0], width // trunk.patch[1])
        if min(grid) < 1 or (grid[0] * trunk.patch[0], grid[1] * trunk.patch[1]) != (height, width):
            raise ValueError(
                f"image of {height} x {width} pixels: sides must be multiples of the patch "
                f"{trunk.patch[0]} x {trunk.patch[1]}; resize with wsss.clip.images.input_size"
            )
        images = to_device(images, self._device).to(trunk.patch_weight.dtype)
        patches = F.conv2d(images, trunk.patch_weight, trunk.patch_bias, stride=trunk.patch)
        tokens = patches.float().flatten(2).transpose(1, 2)  # (B, D, h, w) -> (B, h w, D)
        if self._class_token is None:
            tokens = tokens.contiguous()
        else:
            tokens = torch.cat([self._class_token.expand(len(images), 1, -1), tokens], dim=1)
        tokens.add_(self._positions_on(grid))
        return (tokens if trunk.first_norm is None else trunk.first_norm(tokens)), grid

    def rotation(self, grid: Grid | None) -> Rotation | None:
        """Angles of the patches of a grid; None where queries and keys are not turned.

        Raises:
            ValueError: they are, and the grid is not given.
        """
        if self._trunk.rotate is None:
            return None
        if grid is None:
            raise ValueError("this encoder turns queries and keys, so it needs the patch grid")
        last = self._turned
        if last is None or last[0] != grid:
            self._turned = last = grid, to_device(self._trunk.rotate(grid), self._device)
        return last[1]

    def _positions_on(self, grid: Grid) -> Float[Tensor, "tokens width"]:
        last, table = self._resized
        if last != grid:
            table = resize_positions(self._positions, self.grid, grid, self._rounding)
            self._resized = grid, table
        return table
