"""Attention overrides: attention of a part of the heads to itself (qq, kk, vv) and identity.

Eq. 5 of docs/methods/excel.md. CLIP learned its attention for the class token; what a patch gathers
with it says little about the patch. Attention of queries, keys or values to themselves gathers from
similar patches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from wsss.clip.attention import Heads, add_heads_, head_chunks, scaled_products

Relation = Literal["qq_kk_vv", "qq_kk", "vv", "identity"]
HeadUse = Literal["sum", "mean", "each"]

_PARTS: dict[Relation, tuple[str, ...]] = {
    "qq_kk_vv": ("queries", "keys", "values"),
    "qq_kk": ("queries", "keys"),
    "vv": ("values",),
    "identity": (),
}


@dataclass(frozen=True)
class SelfAttention:
    """An `AttentionOverride`: the mean of the softmax of each part's products with itself.

    Args:
        relation: which parts: ``qq_kk_vv`` (ExCEL's SVC), ``qq_kk`` (SCLIP), ``vv`` (CLIP Surgery),
            ``identity``: every token attends to itself alone (MaskCLIP).
        heads: ``each``: every head uses its own matrix; ``mean``: all heads use the mean matrix;
            ``sum``, as published: all use the sum, whose rows sum to the number of heads.
    """

    relation: Relation = "qq_kk_vv"
    heads: HeadUse = "sum"

    def __call__(
        self, heads: Heads
    ) -> tuple[
        Float[Tensor, "batch heads tokens head_width"], Float[Tensor, "batch tokens tokens"]
    ]:
        """Attended values, and the mean of the matrices over the heads."""
        batch, head_count, tokens, _ = heads.values.shape
        values = heads.values.float()
        if self.relation == "identity":
            mean = torch.eye(tokens, device=values.device).expand(batch, -1, -1)
            return self.gain(head_count) * values, mean
        if values.is_cuda and self.heads != "each":
            mean = self._head_sum(heads).div_(head_count * len(_PARTS[self.relation]))
            # (B, H, L, d) -> (B, L, H d): one matrix for the values of all heads
            rows = values.transpose(1, 2).flatten(2)
            moved = torch.baddbmm(
                rows.new_empty(1, 1, 1), mean, rows, beta=0, alpha=self.gain(head_count)
            )
            return moved.view(batch, tokens, head_count, -1).transpose(1, 2), mean
        total = values.new_zeros(batch, tokens, tokens)
        attended = torch.empty_like(values)
        for chunk, matrix in self._matrices(heads):
            if self.heads == "each":
                attended[:, chunk] = matrix @ values[:, chunk]
            add_heads_(total, matrix)
        mean = total / head_count
        if self.heads != "each":
            # (B, 1, L, L) x (B, H, L, d) -> (B, H, L, d): one matrix for the values of all heads
            attended = (total if self.heads == "sum" else mean).unsqueeze(1) @ values
        return attended, mean

    def gain(self, head_count: int) -> float:
        """Weight, in the matrix applied to values, of what is added to every head's matrix."""
        return float(head_count) if self.heads == "sum" else 1.0

    def _head_sum(self, heads: Heads) -> Float[Tensor, "batch tokens tokens"]:
        """The matrices of all parts and heads, added in one reduction; for a GPU."""
        names = _PARTS[self.relation]
        total: Tensor | None = None
        for chunk in head_chunks(heads, len(names)):
            rows = torch.stack([getattr(heads, name)[:, chunk] for name in names]).float()
            probs = scaled_products(rows, rows, heads.scale).softmax(-1).sum((0, 2))
            total = probs if total is None else total.add_(probs)
        assert total is not None
        return total

    def _matrices(
        self, heads: Heads
    ) -> Iterator[tuple[slice, Float[Tensor, "batch chunk tokens tokens"]]]:
        parts = [getattr(heads, name).float() for name in _PARTS[self.relation]]
        if heads.queries.is_cuda:  # all parts in one product
            for chunk in head_chunks(heads, len(parts)):
                rows = torch.stack([part[:, chunk] for part in parts])
                yield chunk, scaled_products(rows, rows, heads.scale).softmax(-1).mean(0)
            return
        parts = [part.contiguous() for part in parts]
        for chunk in head_chunks(heads):
            matrix = None
            for part in parts:
                rows = part[:, chunk]
                # (B, H', L, d) x (B, H', d, L) -> (B, H', L, L)
                probs = torch.softmax((heads.scale * rows) @ rows.transpose(-2, -1), dim=-1)
                matrix = probs if matrix is None else matrix.add_(probs)
            assert matrix is not None
            yield chunk, matrix.div_(len(parts))
