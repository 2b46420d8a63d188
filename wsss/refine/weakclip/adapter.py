"""The pyramid adapter: maps at four scales from the tokens of a plain ViT.

Eq. 8 and 14 of docs/methods/weakclip.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Level:
    """A map f'_i, or what it is doubled from.

    A linear map that follows can be put into the doubling, so that the doubled map, the largest
    thing of the network, is never made.
    """

    features: Float[Tensor, "batch width rows columns"]
    doubling: nn.ConvTranspose2d | None
    """Kernel and stride 2; None where the features are the map itself."""

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the map."""
        factor = 1 if self.doubling is None else 2
        return factor * self.features.shape[2], factor * self.features.shape[3]

    def maps(self) -> Float[Tensor, "batch width height across"]:
        """The map f'_i."""
        return self.features if self.doubling is None else self.doubling(self.features)

    def convolved(
        self, weight: Float[Tensor, "out width"], bias: Float[Tensor, " out"]
    ) -> Float[Tensor, "batch out height across"]:
        """A linear map of the channels of f'_i."""
        if self.doubling is None:
            return F.conv2d(self.features, weight[:, :, None, None], bias)
        assert self.doubling.bias is not None
        # (out, D) x (D', D, 2, 2) -> (D', out, 2, 2)
        both = torch.einsum("od,idrc->iorc", weight, self.doubling.weight)
        return F.conv_transpose2d(self.features, both, bias + weight @ self.doubling.bias, stride=2)


class PyramidAdapter(nn.Module):
    """Four block outputs to 4, 2, 1 and 1/2 times the patch grid.

    With a patch of 16 pixels these are strides 4, 8, 16 and 32.

    Args:
        width: of a token, and of every map.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.level1 = nn.Sequential(
            _norm(width), _double(width), nn.BatchNorm2d(width), nn.GELU(), _double(width)
        )
        self.level2 = nn.Sequential(_norm(width), _double(width))
        self.level3 = _norm(width)
        self.level4 = nn.Sequential(_norm(width), nn.MaxPool2d(2, 2))

    def forward(self, maps: Sequence[Float[Tensor, "batch channels rows columns"]]) -> list[Level]:
        """The maps f'_1 … f'_4, finest first.

        Args:
            maps: patch tokens of four blocks as maps, shallowest first; at least 2 x 2.
        """
        first, second, third, fourth = maps
        *before, last = self.level1
        for step in before:
            first = step(first)
        norm, doubling = self.level2
        assert isinstance(last, nn.ConvTranspose2d)
        assert isinstance(doubling, nn.ConvTranspose2d)
        return [
            Level(first, last),
            Level(norm(second), doubling),
            Level(self.level3(third), None),
            Level(self.level4(fourth), None),
        ]


def _norm(width: int) -> nn.GroupNorm:
    """Over channels, rows and columns jointly."""
    return nn.GroupNorm(1, width)


def _double(width: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(width, width, kernel_size=2, stride=2)
