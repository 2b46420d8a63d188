"""Attention pooling: SigLIP's image embedding, which stands where CLIP has a class token.

A learned query attends to all patches after the final norm (Zhai et al., arXiv:2303.15343; the head
is that of Set Transformer, arXiv:1810.00825).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wsss.clip.activation import Activation, activate_, activation_of, input_scale
from wsss.clip.errors import UnsupportedEncoderError
from wsss.clip.layers import Linear, Load, Norm


@dataclass(frozen=True)
class AttentionPool:
    """``z = proj(softmax(q k^T) v)``, then ``z + mlp(norm(z))``."""

    query: Float[Tensor, "1 heads 1 head_width"]
    """The learned query, projected; it does not depend on the image."""
    keys_values: Linear
    projection: Linear
    norm: Norm
    fc1: Linear
    fc2: Linear
    activation: Activation

    def __call__(
        self, tokens: Float[Tensor, "batch patches width"]
    ) -> Float[Tensor, "batch width"]:
        """The embedding of images.

        Args:
            tokens: patches after the final norm.
        """
        batch, patches, width = tokens.shape
        heads = self.query.shape[1]
        # (B, N, 2 D) -> (B, N, 2, H, d) -> (2, B, H, N, d)
        packed = self.keys_values(tokens).view(batch, patches, 2, heads, width // heads)
        keys, values = packed.permute(2, 0, 3, 1, 4).unbind(0)
        query = self.query.expand(batch, -1, -1, -1)
        attended = F.scaled_dot_product_attention(query, keys, values)
        # (B, H, 1, d) -> (B, D)
        pooled = self.projection(attended.flatten(1)).float()
        scale = input_scale(self.activation)
        hidden = self.fc1(self.norm(pooled), gain=scale, bias_gain=scale)
        return pooled + self.fc2(activate_(hidden, self.activation), gain=1 / scale).float()

    @staticmethod
    def of(pool: nn.Module, load: Load) -> AttentionPool:
        """Take the weights of timm's `AttentionPoolLatent`.

        Raises:
            UnsupportedEncoderError: it has several queries, positions or norms of its queries.
        """
        parts: Any = pool
        plain = (
            type(pool).__name__ == "AttentionPoolLatent"
            and parts.latent_len == 1
            and parts.pos_embed is None
            and isinstance(parts.q_norm, nn.Identity)
            and isinstance(parts.k_norm, nn.Identity)
            and isinstance(parts.norm, nn.LayerNorm)
            and parts.mlp is not None
        )
        if not plain:
            raise UnsupportedEncoderError(
                f"the image tower pools with {type(pool).__name__} of another kind than SigLIP's"
            )
        query = parts.q(parts.latent)[0, 0].detach()  # (D)
        return AttentionPool(
            query=load(query.view(1, parts.num_heads, 1, parts.head_dim)),
            keys_values=Linear.of(parts.kv.weight, parts.kv.bias, load),
            projection=Linear.of(parts.proj.weight, parts.proj.bias, load),
            norm=Norm.of(parts.norm, "attn_pool.norm"),
            fc1=Linear.of(parts.mlp.fc1.weight, parts.mlp.fc1.bias, load),
            fc2=Linear.of(parts.mlp.fc2.weight, parts.mlp.fc2.bias, load),
            activation=activation_of(parts.mlp.act, "attn_pool.mlp"),
        )
