"""EVA02's transformer block: turned queries and keys, inner norms, a gated feed-forward part.

Sun et al. (EVA-CLIP), arXiv:2303.15389; rotary positions Su et al., arXiv:2104.09864.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wsss.clip.attention import Heads
from wsss.clip.layers import Linear, Norm
from wsss.clip.trunk.parts import Rotation


@dataclass(frozen=True)
class EvaBlock:
    """``y = x + out(norm(attn(norm1(x))))``, then ``y + fc2(norm(silu(gate) * value))``."""

    norm1: Norm
    in_proj: Linear
    """Queries, keys and values; keys have no bias."""
    inner_norm: Norm | None
    """Of the attended values of all heads together."""
    out_proj: Linear
    norm2: Norm
    fc1: Linear
    """Gate, then value: one product for both."""
    hidden_norm: Norm | None
    fc2: Linear
    gain1: Float[Tensor, " width"] | None
    """Layer scale after the attention, None without."""
    gain2: Float[Tensor, " width"] | None
    heads: int

    def split_heads(
        self, normed: Float[Tensor, "batch tokens width"], rotation: Rotation | None = None
    ) -> Heads:
        """Queries, keys and values of the output of ``norm1``; patches turned, if by ``rotation``.

        The class token comes first and is not turned.
        """
        batch, tokens, _ = normed.shape
        # (B, L, 3 D) -> (B, L, 3, H, d) -> (3, B, H, L, d)
        packed = self.in_proj(normed).view(batch, tokens, 3, self.heads, -1)
        queries, keys, values = packed.permute(2, 0, 3, 1, 4).unbind(0)
        if rotation is not None:
            queries, keys = turned(queries, rotation), turned(keys, rotation)
        return Heads(queries, keys, values)

    def add_attention(
        self,
        tokens: Float[Tensor, "batch tokens width"],
        attended: Float[Tensor, "batch heads tokens head_width"],
    ) -> Float[Tensor, "batch tokens width"]:
        """Norm and project the attended values of the heads and add them to the stream."""
        mixed = attended.transpose(1, 2).flatten(2)  # (B, H, L, d) -> (B, L, H, d) -> (B, L, D)
        if self.inner_norm is not None:
            mixed = self.inner_norm(mixed)
        return _add(tokens, self.out_proj(mixed), self.gain1)

    def add_mlp(
        self, tokens: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch tokens width"]:
        """Add the gated feed-forward part to the residual stream."""
        gate, value = self.fc1(self.norm2(tokens)).chunk(2, dim=-1)
        hidden = F.silu(gate) * value
        if self.hidden_norm is not None:
            hidden = self.hidden_norm(hidden)
        return _add(tokens, self.fc2(hidden), self.gain2)


def turned(
    rows: Float[Tensor, "batch heads tokens head_width"], rotation: Rotation
) -> Float[Tensor, "batch heads tokens head_width"]:
    """Turn each pair of neighbouring channels of the patches by its angle; other tokens stay.

    Args:
        rows: queries or keys, patches last.
        rotation: sine and cosine.
    """
    sine, cosine = rotation
    others = rows.shape[2] - len(sine)
    patches = rows[:, :, others:].float()
    # (x0, x1, x2, x3 …) -> (-x1, x0, -x3, x2 …)
    across = torch.stack([-patches[..., 1::2], patches[..., ::2]], dim=-1).flatten(-2)
    moved = (patches * cosine + across * sine).to(rows.dtype)
    return torch.cat([rows[:, :, :others], moved], dim=2)


def _add(tokens: Tensor, update: Tensor, gain: Tensor | None) -> Tensor:
    update = update.to(tokens.dtype)
    return tokens + (update if gain is None else update * gain)
