"""The transformer decoder over fused features (eq. 4 and 5 of docs/methods/weclip.md)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class TransformerDecoder(nn.Module):
    """Blocks of self-attention over the patches, then a linear classifier of each.

    As published there are no position codes and no norm after the last block.

    Args:
        labels: classes and the background.
        depth: number of blocks.
        heads: of each block.

    Raises:
        ValueError: the heads do not divide the width.
    """

    def __init__(self, labels: int, width: int = 256, *, depth: int = 3, heads: int = 8) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is no multiple of {heads} heads")
        self.blocks = nn.ModuleList(DecoderBlock(width, heads) for _ in range(depth))
        self.classify = nn.Conv2d(width, labels, 1)

    def forward(
        self, fused: Float[Tensor, "batch width rows columns"]
    ) -> Float[Tensor, "batch labels rows columns"]:
        """Logits of every label on the patch grid."""
        tokens = fused.flatten(2).transpose(1, 2)  # (B, D, h, w) -> (B, N, D)
        for block in self.blocks:
            tokens = block(tokens)
        # (B, N, D) -> (B, D, h, w)
        return self.classify(tokens.transpose(1, 2).reshape(fused.shape))


class DecoderBlock(nn.Module):
    """A pre-norm transformer block with QuickGELU."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.in_proj, self.out_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        # The start of torch.nn.MultiheadAttention, which the published block consists of.
        nn.init.xavier_uniform_(self.in_proj.weight)
        nn.init.zeros_(self.in_proj.bias)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self, tokens: Float[Tensor, "batch patches width"]
    ) -> Float[Tensor, "batch patches width"]:
        """Attention and feed-forward part, each added to the stream."""
        batch, patches, width = tokens.shape
        # (B, N, 3 D) -> (B, N, 3, H, d) -> 3 x (B, H, N, d)
        packed = self.in_proj(self.norm1(tokens)).view(batch, patches, 3, self.heads, -1)
        # Transposed one by one: their gradients are joined where they belong, without a copy.
        queries, keys, values = (part.transpose(1, 2) for part in packed.unbind(2))
        attended = F.scaled_dot_product_attention(queries, keys, values)
        # (B, H, N, d) -> (B, N, D)
        tokens = tokens + self.out_proj(attended.transpose(1, 2).reshape(batch, patches, width))
        hidden = self.fc1(self.norm2(tokens))
        return tokens + self.fc2(hidden * torch.sigmoid(1.702 * hidden))
