"""The pyramid adapter: maps at four scales from the tokens of a plain ViT (WeakCLIP, spec 1.2)."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn


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

    def forward(
        self, taps: Sequence[Float[Tensor, "batch channels rows columns"]]
    ) -> list[Float[Tensor, "batch channels _ _"]]:
        """The maps f'_1 … f'_4, finest first.

        Args:
            taps: patch tokens of four blocks as maps, shallowest first; at least 2 x 2.
        """
        levels = (self.level1, self.level2, self.level3, self.level4)
        return [level(tap) for level, tap in zip(levels, taps, strict=True)]


def _norm(width: int) -> nn.GroupNorm:
    """Over channels, rows and columns jointly."""
    return nn.GroupNorm(1, width)


def _double(width: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(width, width, kernel_size=2, stride=2)
