"""Multi-head attention in the forms that the methods need.

`fused` never stores the attention matrix. `explicit` builds it for a few heads at a time and adds
the heads to a running sum. An `AttentionOverride` replaces the attention of a block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
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
    """Softmax attention by torch's fused kernel; the matrix is never stored.

    In bfloat16 on a CPU it takes one head after the other, which needs half the kernel's time.
    """
    if _rounded_on_cpu(heads):
        return _head_by_head(heads)
    return F.scaled_dot_product_attention(heads.queries, heads.keys, heads.values)


def explicit(
    heads: Heads, total: Float[Tensor, "batch tokens tokens"]
) -> Float[Tensor, "batch heads tokens head_width"]:
    """Softmax attention; adds its matrices, summed over the heads, to ``total``.

    Rows of a matrix are queries and sum to one. Sums are float32. So are the matrices, but for
    bfloat16 on a CPU.
    """
    if not heads.queries.is_cuda:
        return _head_by_head(heads, lambda _, matrix: add_heads_(total, matrix))
    attended = []
    for matrix, values in _by_few_launches(heads):
        add_heads_(total, matrix)
        attended.append(values)
    return attended[0] if len(attended) == 1 else torch.cat(attended, dim=1)


def explicit_with_mean(
    heads: Heads,
) -> tuple[Float[Tensor, "batch heads tokens head_width"], Float[Tensor, "batch tokens tokens"]]:
    """Softmax attention, and the mean of its matrices over the heads; see `explicit`."""
    batch, head_count, tokens, _ = heads.values.shape
    if heads.queries.is_cuda and len(list(head_chunks(heads))) == 1:
        ((matrix, attended),) = _by_few_launches(heads)
        return attended, matrix.mean(1)
    mean = torch.zeros(batch, tokens, tokens, device=heads.values.device)
    attended = explicit(heads, mean)
    mean /= head_count
    return attended, mean


def explicit_with_weights(
    heads: Heads,
) -> tuple[
    Float[Tensor, "batch heads tokens tokens"], Float[Tensor, "batch heads tokens head_width"]
]:
    """The attention matrix of every head, in float32, and the attended values."""
    batch, head_count, tokens, _ = heads.values.shape
    weights = torch.empty((batch, head_count, tokens, tokens), device=heads.values.device)
    if not heads.queries.is_cuda:
        return weights, _head_by_head(heads, lambda head, matrix: weights[:, head].copy_(matrix))
    attended = []
    for chunk, (matrix, values) in zip(head_chunks(heads), _by_few_launches(heads), strict=True):
        if matrix.shape[1] == head_count:
            return matrix, values
        weights[:, chunk] = matrix
        attended.append(values)
    return weights, torch.cat(attended, dim=1)


def add_heads_(
    total: Float[Tensor, "batch tokens tokens"], matrix: Float[Tensor, "batch heads tokens tokens"]
) -> None:
    """Add the matrices of all heads to a sum, in one reduction where there are several."""
    total += matrix[:, 0] if matrix.shape[1] == 1 else matrix.sum(1)


def _head_by_head(
    heads: Heads, use: Callable[[slice, Tensor], object] = lambda head, matrix: None
) -> Float[Tensor, "batch heads queries head_width"]:
    """Softmax attention on a CPU, one head after the other.

    Args:
        use: called with each head and its matrix, whose memory then takes the next one: new memory
            for each would take longer than the softmax.
    """
    queries = torch.empty(heads.queries.shape)  # contiguous, which the parts of a block are not
    torch.mul(heads.queries.float(), heads.scale, out=queries)
    keys, values = heads.keys.float().contiguous(), heads.values.contiguous()
    if _rounded_on_cpu(heads):
        # A softmax stays the same if all keys move by one vector. Around their mean the scores are
        # smaller, so that rounding them to bfloat16 costs less.
        keys = keys - keys.mean(2, keepdim=True)
        queries, keys = queries.bfloat16(), keys.bfloat16()
    else:
        values = values.float()
    batch, _, rows, _ = queries.shape
    matrix = queries.new_empty(batch, 1, rows, keys.shape[2])
    attended = torch.empty(queries.shape, dtype=queries.dtype)
    for head in head_chunks(heads):
        # (B, 1, L, d) x (B, 1, d, L) -> (B, 1, L, L)
        torch.matmul(queries[:, head], keys[:, head].transpose(-2, -1), out=matrix)
        torch.softmax(matrix, dim=-1, out=matrix)
        torch.matmul(matrix, values[:, head], out=attended[:, head])
        use(head, matrix)
    return attended


def _rounded_on_cpu(heads: Heads) -> bool:
    """Whether matrices are built in bfloat16, by a CPU that has instructions for it."""
    return heads.queries.dtype is torch.bfloat16 and heads.queries.device.type == "cpu"


def _by_few_launches(
    heads: Heads,
) -> Iterator[
    tuple[
        Float[Tensor, "batch chunk tokens tokens"], Float[Tensor, "batch chunk tokens head_width"]
    ]
]:
    """Matrices of a few heads at a time, and what they attend to, on a GPU.

    All parts are copied at once, and the scale is a part of the product.
    """
    for chunk in head_chunks(heads):
        parts = (heads.queries, heads.keys, heads.values)
        queries, keys, values = torch.stack([part[:, chunk] for part in parts]).float()
        matrix = scaled_products(queries, keys, heads.scale).softmax(-1)
        yield matrix, matrix @ values


def scaled_products(
    queries: Float[Tensor, "*heads queries head_width"],
    keys: Float[Tensor, "*heads tokens head_width"],
    scale: float,
) -> Float[Tensor, "*heads queries tokens"]:
    """Dot products times a scale, in one product of matrices; contiguous inputs are not copied."""
    left, right = queries.flatten(0, -3), keys.flatten(0, -3).transpose(1, 2)
    nothing = left.new_empty(1, 1, 1)  # times 0
    products = torch.baddbmm(nothing, left, right, beta=0, alpha=scale)
    return products.view(*queries.shape[:-1], keys.shape[-2])


def head_chunks(heads: Heads, parts: int = 1) -> Iterator[slice]:
    """Heads whose matrices are built together: one on a CPU, as many as fit on a GPU.

    Args:
        parts: matrices of a head that are built at once on a GPU.
    """
    batch, head_count, tokens, _ = heads.queries.shape
    step = 1
    if heads.queries.is_cuda:
        step = max(1, min(head_count, _GPU_CHUNK_BYTES // (4 * parts * batch * tokens * tokens)))
    for start in range(0, head_count, step):
        yield slice(start, min(start + step, head_count))
