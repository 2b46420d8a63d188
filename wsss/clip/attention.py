"""Multi-head attention in the forms that the methods need.

`fused` never builds the attention matrix. `explicit` builds it for a few heads at a time and adds
the heads to a running sum. An `AttentionOverride` replaces the attention of a block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

# Bytes of attention matrices built at once on a GPU. A CPU builds one head at a time: its matrix
# stays in the cache between the first product, the softmax and the second product.
_GPU_CHUNK_BYTES = 1 << 30


@dataclass(frozen=True)
class Heads:
    """Queries, keys and values of one block, head by head."""

    queries: Float[Tensor, "batch heads queries head_width"]
    keys: Float[Tensor, "batch heads tokens head_width"]
    values: Float[Tensor, "batch heads tokens head_width"]

    @property
    def scale(self) -> float:
        """Factor of the dot products, 1 / sqrt(head width)."""
        return 1 / math.sqrt(self.queries.shape[-1])

    def of_class_token(self) -> Heads:
        """The same heads with the class token as the only query."""
        return Heads(self.queries[:, :, :1], self.keys, self.values)


@runtime_checkable
class AttentionOverride(Protocol):
    """Replaces the attention of one block, for instance by value-value attention.

    `ClipEncoder.run` takes one per block.
    """

    def __call__(
        self, heads: Heads
    ) -> tuple[
        Float[Tensor, "batch heads tokens head_width"], Float[Tensor, "batch tokens tokens"] | None
    ]:
        """Attend.

        Args:
            heads: queries, keys and values of the block.

        Returns:
            The attended values of every head, and the matrix that is returned as the block's
            head-mean attention (None: the block has none to return).
        """
        ...


def fused(heads: Heads) -> Float[Tensor, "batch heads queries head_width"]:
    """Softmax attention by torch's fused kernel; the matrix is never stored."""
    return F.scaled_dot_product_attention(heads.queries, heads.keys, heads.values)


def explicit(
    heads: Heads, total: Float[Tensor, "batch tokens tokens"]
) -> Float[Tensor, "batch heads tokens head_width"]:
    """Softmax attention in float32; adds its matrices, summed over the heads, to ``total``.

    Rows of a matrix are queries and sum to one.
    """
    attended = torch.empty(heads.values.shape, device=total.device)
    for _, matrix in _matrices(heads, attended):
        for head in matrix.unbind(1):
            total += head
    return attended


def explicit_with_weights(
    heads: Heads,
) -> tuple[
    Float[Tensor, "batch heads tokens tokens"], Float[Tensor, "batch heads tokens head_width"]
]:
    """The attention matrix of every head, and the attended values; float32."""
    batch, head_count, tokens, _ = heads.values.shape
    attended = torch.empty(heads.values.shape, device=heads.values.device)
    weights = torch.empty((batch, head_count, tokens, tokens), device=heads.values.device)
    for chunk, matrix in _matrices(heads, attended):
        weights[:, chunk] = matrix
    return weights, attended


def _matrices(
    heads: Heads, attended: Float[Tensor, "batch heads tokens head_width"]
) -> Iterator[tuple[slice, Float[Tensor, "batch chunk tokens tokens"]]]:
    """Attention matrices of a few heads at a time; writes their values to ``attended``."""
    queries = (heads.queries.float() * heads.scale).contiguous()
    keys, values = heads.keys.float().contiguous(), heads.values.float().contiguous()
    for chunk in head_chunks(heads):
        # (B, H', L, d) x (B, H', d, L) -> (B, H', L, L)
        matrix = torch.softmax(queries[:, chunk] @ keys[:, chunk].transpose(-2, -1), dim=-1)
        attended[:, chunk] = matrix @ values[:, chunk]
        yield chunk, matrix


def head_chunks(heads: Heads) -> Iterator[slice]:
    """Heads whose matrices are built together: one on a CPU, as many as fit on a GPU."""
    batch, head_count, tokens, _ = heads.queries.shape
    step = 1
    if heads.queries.is_cuda:
        step = max(1, min(head_count, _GPU_CHUNK_BYTES // (4 * batch * tokens * tokens)))
    for start in range(0, head_count, step):
        yield slice(start, min(start + step, head_count))
