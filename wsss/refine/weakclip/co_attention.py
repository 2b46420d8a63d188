"""Co-attention matching of texts and patches (eq. 9-13 of docs/methods/weakclip.md)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class CoAttention(nn.Module):
    """What texts learn from an image and its patches from the texts, before the residual.

    Two stacks of layers, text ← visual and visual ← text. Each attends to its own side, then to the
    other side as it was projected at the start.

    Args:
        embed_dim: width of the joint space of images and texts.
        width: inside.
        depth: layers of a stack.
        dropout: after attention and inside the feed-forward part.
        chained: whether a layer goes on from what the one before gave. False, as released: every
            layer is given the stack's input and the last one's result is used, so that all others
            are dead weight.
    """

    def __init__(
        self,
        embed_dim: int,
        width: int = 256,
        *,
        heads: int = 4,
        depth: int = 3,
        dropout: float = 0.1,
        chained: bool = True,
    ) -> None:
        super().__init__()
        self.text_in = nn.Sequential(nn.LayerNorm(embed_dim), nn.Linear(embed_dim, width))
        self.visual_in = nn.Sequential(
            nn.LayerNorm(embed_dim), nn.Linear(embed_dim, width), nn.LayerNorm(width)
        )
        self.text_layers = nn.ModuleList(_Layer(width, heads, dropout) for _ in range(depth))
        self.visual_layers = nn.ModuleList(_Layer(width, heads, dropout) for _ in range(depth))
        self.text_out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, embed_dim))
        self.visual_out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, embed_dim))
        self._chained = chained
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(
        self,
        texts: Float[Tensor, "batch texts embed_dim"],
        visual: Float[Tensor, "batch tokens embed_dim"],
    ) -> tuple[Float[Tensor, "batch texts embed_dim"], Float[Tensor, "batch tokens embed_dim"]]:
        """The changes dT and dV.

        Args:
            texts: T.
            visual: V, class token first.
        """
        text, memory = self.text_in(texts), self.visual_in(visual)
        text_change = self._stack(self.text_layers, text, memory)
        visual_change = self._stack(self.visual_layers, memory, text)
        return self.text_out(text_change), self.visual_out(visual_change)

    def _stack(self, layers: Iterable[nn.Module], start: Tensor, memory: Tensor) -> Tensor:
        if not self._chained:  # only the last layer's result is used: the others need not run
            *_, last = layers
            result: Tensor = last(start, memory)
            return result
        for layer in layers:
            start = layer(start, memory)
        return start


class _Layer(nn.Module):
    """Self-attention, cross-attention and a feed-forward part, each behind a norm and added."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.self_attn = _Attention(width, heads, dropout)
        self.cross_attn = _Attention(width, heads, dropout)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, tokens: Float[Tensor, "batch n width"], memory: Float[Tensor, "batch m width"]
    ) -> Float[Tensor, "batch n width"]:
        normed = self.norm1(tokens)
        tokens = tokens + self.self_attn(normed, normed)
        tokens = tokens + self.cross_attn(self.norm2(tokens), memory)
        update: Tensor = self.dropout(self.mlp(self.norm3(tokens)))
        return tokens + update


class _Attention(nn.Module):
    """Multi-head attention without biases on queries, keys and values."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is no multiple of {heads} heads")
        self.queries, self.keys, self.values = (
            nn.Linear(width, width, bias=False) for _ in range(3)
        )
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self._heads = heads

    def forward(
        self, tokens: Float[Tensor, "batch n width"], memory: Float[Tensor, "batch m width"]
    ) -> Float[Tensor, "batch n width"]:
        attended = F.scaled_dot_product_attention(
            self._split(self.queries(tokens)),
            self._split(self.keys(memory)),
            self._split(self.values(memory)),
        )
        # (B, H, n, d) -> (B, n, D)
        return self.dropout(self.out(attended.transpose(1, 2).flatten(2)))

    def _split(self, rows: Float[Tensor, "batch n width"]) -> Float[Tensor, "batch heads n d"]:
        # (B, n, D) -> (B, n, H, d) -> (B, H, n, d)
        split: Tensor = rows.unflatten(2, (self._heads, -1)).transpose(1, 2)
        return split


class TextMatching(nn.Module):
    """Texts and patches, moved towards each other by co-attention, and their cosines.

    ``t* = t + gamma dT`` and ``v* = v + beta dV`` with a learned factor for each channel.

    Args:
        co_attention: gives dT and dV.
        embed_dim: width of the joint space.
        temperature: start of every factor (published: 0.1).
    """

    def __init__(self, co_attention: CoAttention, embed_dim: int, temperature: float) -> None:
        super().__init__()
        self.co_attention = co_attention
        self.gamma = nn.Parameter(torch.full((embed_dim,), temperature))
        self.beta = nn.Parameter(torch.full((embed_dim,), temperature))

    def forward(
        self,
        texts: Float[Tensor, "texts embed_dim"],
        visual: Float[Tensor, "batch tokens embed_dim"],
        grid: tuple[int, int],
    ) -> Float[Tensor, "batch texts rows columns"]:
        """The match map lambda', cosines in -1 … 1.

        Args:
            texts: t_p, the same for all images.
            visual: the class token g, then the patches f_p.
            grid: rows and columns of the patches.
        """
        several = texts.expand(len(visual), -1, -1)  # (K, d) -> (B, K, d)
        text_change, visual_change = self.co_attention(several, visual)
        moved = F.normalize(several + self.gamma * text_change, dim=-1)
        patches = F.normalize((visual + self.beta * visual_change)[:, 1:], dim=-1)
        # (B, K, d) x (B, d, h w) -> (B, K, h w) -> (B, K, h, w)
        match: Tensor = (moved @ patches.transpose(1, 2)).unflatten(2, grid)
        return match
