"""Softmax attention in bfloat16, as a CPU with such instructions computes it, against float64."""

import pytest
import torch
from torch import Tensor

from wsss.clip.attention import (
    Heads,
    explicit,
    explicit_with_mean,
    explicit_with_weights,
    fused,
)

BATCH, HEADS, TOKENS, WIDTH = 2, 3, 50, 16
ROUNDING = 2**-8
"""Relative spacing of bfloat16 numbers."""


def _heads(key_offset: float = 0.0, queries: int = TOKENS) -> Heads:
    """Random heads in bfloat16; all keys moved by one vector."""
    random = torch.Generator().manual_seed(0)
    parts = torch.randn(3, BATCH, HEADS, TOKENS, WIDTH, generator=random)
    parts[1] += key_offset * torch.randn(WIDTH, generator=random)
    q, k, v = parts.bfloat16()
    return Heads(q[:, :, :queries], k, v)


def _exact(heads: Heads) -> tuple[Tensor, Tensor]:
    """Matrices and attended values of the rounded inputs, in float64."""
    q, k, v = (part.double() for part in (heads.queries, heads.keys, heads.values))
    # (B, H, L, d) x (B, H, d, L) -> (B, H, L, L)
    matrices = torch.softmax(heads.scale * q @ k.transpose(-2, -1), dim=-1)
    return matrices, matrices @ v


@pytest.mark.parametrize("queries", [TOKENS, 1])
def test_attended_values_are_within_the_rounding(queries: int) -> None:
    heads = _heads(queries=queries)
    attended = fused(heads)
    exact = _exact(heads)[1]
    assert attended.shape == exact.shape
    assert (attended.double() - exact).abs().max() < 4 * ROUNDING * heads.values.abs().max()


def test_matrices_are_within_the_rounding_and_sums_are_float32() -> None:
    heads = _heads()
    exact = _exact(heads)[0]
    weights, attended = explicit_with_weights(heads)
    assert weights.dtype == torch.float32
    assert (weights.double() - exact).abs().max() < 4 * ROUNDING * exact.max()
    total = torch.zeros(BATCH, TOKENS, TOKENS)
    torch.testing.assert_close(explicit(heads, total), attended, rtol=0, atol=0)
    torch.testing.assert_close(total, weights.sum(1), rtol=0, atol=1e-6)
    mean = explicit_with_mean(heads)[1]
    torch.testing.assert_close(mean, weights.mean(1), rtol=0, atol=1e-6)


def test_a_vector_in_all_keys_costs_no_precision() -> None:
    """It changes no weight, but scores of ± 50 would be rounded to a quarter."""
    heads = _heads(key_offset=30.0)
    exact = _exact(heads)[1]
    q, k = (part.float() for part in (heads.queries, heads.keys))
    scores = (heads.scale * q @ k.transpose(-2, -1)).bfloat16()
    plain = torch.softmax(scores, dim=-1) @ heads.values
    error = (fused(heads).double() - exact).abs().max()
    assert error < 0.25 * (plain.double() - exact).abs().max()
