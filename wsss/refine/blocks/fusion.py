"""Fusion of the frozen encoder's block outputs into one map of features.

Eq. 2, 3 and 6 of docs/methods/weclip.md.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class FeatureFusion(nn.Module):
    """A separate MLP for each block's patch tokens, and a linear map of their outputs.

    The weights of the MLPs are stacked and run as one batched product.

    Args:
        blocks: number of block outputs.
        width: of a token of the encoder.
        out: width of the fused features.
    """

    def __init__(self, blocks: int, width: int, out: int) -> None:
        super().__init__()
        self.first_weight = _uniform(blocks, width, out, into=width)
        self.first_bias = _uniform(blocks, 1, out, into=width)
        self.second_weight = _uniform(blocks, out, out, into=out)
        self.second_bias = _uniform(blocks, 1, out, into=out)
        self.mix = nn.Conv2d(blocks * out, out, 1)

    def forward(
        self, features: Float[Tensor, "blocks batch patches width"], grid: tuple[int, int]
    ) -> Float[Tensor, "batch out rows columns"]:
        """Fuse patch tokens (no class token).

        Args:
            features: outputs of the blocks, in their order.
            grid: rows and columns of the patches.
        """
        blocks, batch, patches, width = features.shape
        flat = features.reshape(blocks, batch * patches, width)  # (b, B, N, D) -> (b, B N, D)
        hidden = F.relu(torch.baddbmm(self.first_bias, flat, self.first_weight))
        outputs = torch.baddbmm(self.second_bias, hidden, self.second_weight)  # (b, B N, out)
        # (b, B N, out) -> (b, B, h, w, out) -> (B, b, out, h, w) -> (B, b out, h, w)
        maps = outputs.view(blocks, batch, *grid, -1).permute(1, 0, 4, 2, 3).flatten(1, 2)
        return self.mix(maps)


def feature_affinity(
    fused: Float[Tensor, "batch out rows columns"], temperature: float | None = None
) -> Float[Tensor, "batch patches patches"]:
    """Learned affinity between patches.

    Args:
        temperature: None: ``sigmoid(F^T F)`` of raw dot products, as published, which saturates
            early (eq. 6); else of cosines divided by it.
    """
    flat = fused.flatten(2)  # (B, C, h, w) -> (B, C, N)
    if temperature is not None:
        flat = F.normalize(flat, dim=1) / temperature**0.5
    return (flat.transpose(1, 2) @ flat).sigmoid()


def _uniform(*shape: int, into: int) -> nn.Parameter:
    """The start of `torch.nn.Linear`: uniform within one over the root of the inputs."""
    return nn.Parameter(torch.empty(*shape).uniform_(-1 / math.sqrt(into), 1 / math.sqrt(into)))
