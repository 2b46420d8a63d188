"""Attention rewrites that let a patch speak for itself: qq, kk, vv and identity.

Eq. 5 of docs/methods/excel.md. CLIP learned its attention for the class token; what a patch gathers
by it says little of the patch. Attention of queries, keys or values to themselves gathers from
patches that are alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from wsss.clip.attention import Heads, head_chunks

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
    """An `AttentionRewrite`: the mean of the softmax of each part's products with itself.

    Args:
        relation: which parts: ``qq_kk_vv`` (ExCEL's SVC), ``qq_kk`` (SCLIP), ``vv`` (CLIP Surgery),
            ``identity``: every token keeps its own value (MaskCLIP).
        heads: ``each`` head mixes its values by its own matrix; ``mean``: all by the mean matrix;
            ``sum``, as published: all by the sum, whose rows add up to the number of heads.
    """

    relation: Relation = "qq_kk_vv"
    heads: HeadUse = "sum"

    def __call__(
        self, heads: Heads
    ) -> tuple[
        Float[Tensor, "batch heads tokens head_width"], Float[Tensor, "batch tokens tokens"]
    ]:
        """Mixed values, and the mean over the heads of the matrices."""
        batch, count, tokens, _ = heads.values.shape
        values = heads.values.float()
        if self.relation == "identity":
            mean = torch.eye(tokens, device=values.device).expand(batch, -1, -1)
            return self.gain(count) * values, mean
        total = values.new_zeros(batch, tokens, tokens)
        mixed = torch.empty_like(values)
        for chunk, matrix in self._matrices(heads):
            if self.heads == "each":
                mixed[:, chunk] = matrix @ values[:, chunk]
            for head in matrix.unbind(1):
                total += head
        mean = total / count
        if self.heads != "each":
            # (B, 1, L, L) x (B, H, L, d) -> (B, H, L, d): one matrix for the values of all heads
            mixed = (total if self.heads == "sum" else mean).unsqueeze(1) @ values
        return mixed, mean

    def gain(self, count: int) -> float:
        """How much a matrix added to that of every head weighs in what mixes the values."""
        return float(count) if self.heads == "sum" else 1.0

    def _matrices(
        self, heads: Heads
    ) -> Iterator[tuple[slice, Float[Tensor, "batch chunk tokens tokens"]]]:
        parts = [getattr(heads, name).float().contiguous() for name in _PARTS[self.relation]]
        for chunk in head_chunks(heads):
            matrix = None
            for part in parts:
                own = part[:, chunk]
                one = torch.softmax((heads.scale * own) @ own.transpose(-2, -1), dim=-1)
                matrix = one if matrix is None else matrix.add_(one)
            assert matrix is not None
            yield chunk, matrix.div_(len(parts))
