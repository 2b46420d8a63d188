"""Multi-head attention in the forms that the methods need.

`fused` never builds the attention matrix, `explicit` builds it a few heads at a time to add its
head mean to a running sum, and an `AttentionRewrite` replaces a block's attention by another.
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

# Attention of this many bytes is built at once on a GPU. On a CPU it is always one head, whose
# matrix then stays in the cache between the product, the softmax and the second product.
_GPU_CHUNK_BYTES = 1 << 30


@dataclass(frozen=True)
class Heads:
    """Queries, keys and values of one block, head by head."""

    queries: Float[Tensor, "batch heads asking head_width"]
    keys: Float[Tensor, "batch heads tokens head_width"]
    values: Float[Tensor, "batch heads tokens head_width"]

    @property
    def scale(self) -> float:
        """Factor of the dot products, 1 / sqrt(head width)."""
        return 1 / math.sqrt(self.queries.shape[-1])

    def of_class_token(self) -> Heads:
        """The same with the class token as the only query."""
        return Heads(self.queries[:, :, :1], self.keys, self.values)


@runtime_checkable
class AttentionRewrite(Protocol):
    """Replaces the attention of one block, for instance by value-value attention.

    Give one to `ClipEncoder.run` for the blocks where it applies.
    """

    def __call__(
        self, heads: Heads
    ) -> tuple[
        Float[Tensor, "batch heads tokens head_width"], Float[Tensor, "batch tokens tokens"] | None
    ]:
        """Mix the values.

        Args:
            heads: queries, keys and values of the block.

        Returns:
            The mixed values of every head, and the map that stands for the head mean where
            attention is asked for (None: it cannot be asked for).
        """
        ...


def fused(heads: Heads) -> Float[Tensor, "batch heads asking head_width"]:
    """Softmax attention by torch's fused kernel; the matrix is never stored."""
    return F.scaled_dot_product_attention(heads.queries, heads.keys, heads.values)


def explicit(
    heads: Heads, total: Float[Tensor, "batch tokens tokens"]
) -> Float[Tensor, "batch heads tokens head_width"]:
    """Softmax attention that adds the sum of its matrices over the heads to ``total``, in place.

    In float32. Matrices have queries as rows, and each row sums to one.
    """
    mixed = torch.empty(heads.values.shape, device=total.device)
    for chunk, matrix in _matrices(heads, mixed):
        del chunk
        for head in matrix.unbind(1):
            total += head
    return mixed


def explicit_with_weights(
    heads: Heads,
) -> tuple[
    Float[Tensor, "batch heads tokens tokens"], Float[Tensor, "batch heads tokens head_width"]
]:
    """The attention matrix of every head, and the mixed values; in float32."""
    batch, count, tokens, _ = heads.values.shape
    mixed = torch.empty(heads.values.shape, device=heads.values.device)
    weights = torch.empty((batch, count, tokens, tokens), device=heads.values.device)
    for chunk, matrix in _matrices(heads, mixed):
        weights[:, chunk] = matrix
    return weights, mixed


def _matrices(
    heads: Heads, mixed: Float[Tensor, "batch heads tokens head_width"]
) -> Iterator[tuple[slice, Float[Tensor, "batch chunk tokens tokens"]]]:
    """Attention matrices of a few heads at a time; their mixed values are written to ``mixed``."""
    queries = (heads.queries.float() * heads.scale).contiguous()
    keys, values = heads.keys.float().contiguous(), heads.values.float().contiguous()
    for chunk in head_chunks(heads):
        # (B, H', L, d) x (B, H', d, L) -> (B, H', L, L)
        matrix = torch.softmax(queries[:, chunk] @ keys[:, chunk].transpose(-2, -1), dim=-1)
        mixed[:, chunk] = matrix @ values[:, chunk]
        yield chunk, matrix


def head_chunks(heads: Heads) -> Iterator[slice]:
    """Heads whose matrices are built at once: one on a CPU, as many as fit on a GPU."""
    batch, count, tokens, _ = heads.queries.shape
    step = 1
    if heads.queries.is_cuda:
        step = max(1, min(count, _GPU_CHUNK_BYTES // (4 * batch * tokens * tokens)))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
