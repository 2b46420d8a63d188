"""Affinities between patches that follow from frozen features, without training.

Eq. 1-6 of docs/methods/affinity.md. Two patches belong together if they spread alike over the texts
of all classes and backgrounds (`distribution`), or if their features point the same way
(`feature`). Either stands in the place of the mean attention, or is multiplied with it. Features of
any frozen encoder will do for the cosine, once they lie on the grid of the maps.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wsss.clip.encoder import ClipEncoder
from wsss.clip.text.embeddings import TextBank
from wsss.clip.trunk.check import refuse_pooled
from wsss.clip.trunk.parts import Tower
from wsss.config.cams import AffinityConfig

_TINY = 1e-30  # a probability of 0 has no logarithm
_LN2 = math.log(2)


def check_compares_texts(tower: Tower) -> None:
    """Refuse an image tower whose patches are not in the space of the texts.

    Raises:
        UnsupportedEncoderError: it has no class token (SigLIP).
    """
    refuse_pooled(
        tower,
        "cams.affinity.kind distribution compares",
        "set cams.affinity.kind to feature or attention (joined_with to feature)",
    )


@torch.no_grad()
def patch_features(
    encoder: ClipEncoder, tokens: Float[Tensor, "batch tokens width"], grid: tuple[int, int]
) -> Float[Tensor, "batch patches embed_dim"]:
    """Patches in the space that images and texts share.

    Args:
        tokens: output of its last block; the patches come last.
        grid: rows and columns of the patches.
    """
    return encoder.project(encoder.normalize(tokens[:, -grid[0] * grid[1] :]))


@torch.no_grad()
def class_distributions(
    features: Float[Tensor, "batch patches embed_dim"],
    texts: Float[Tensor, "texts embed_dim"],
    sharpness: float,
) -> Float[Tensor, "batch patches texts"]:
    """Softmax over all texts of each patch's cosines (eq. 2); above 0.

    Args:
        features: of any length.
        texts: unit vectors.
        sharpness: factor of the cosines.
    """
    cosines = F.normalize(features, dim=-1) @ texts.T
    return torch.softmax(sharpness * cosines, dim=-1).clamp_min_(_TINY)


@torch.no_grad()
def divergences(
    distributions: Float[Tensor, "batch patches texts"], rows_at_once: int | None = None
) -> Float[Tensor, "batch patches patches"]:
    """Jensen-Shannon divergence of each pair of patches, in 0 … ln 2 (eq. 3).

    With m = p_i + p_j it is ln 2 - (sum of m ln m - sum of p_i ln p_i - sum of p_j ln p_j) / 2. The
    numbers m of all pairs would be too many, so rows are taken in blocks, each from its own patch
    on: the matrix is symmetric.

    Args:
        distributions: from `class_distributions`.
        rows_at_once: patches of a block; None: as many as keep its memory small.
    """
    batch, patches, texts = distributions.shape
    if rows_at_once is None:
        rows_at_once = max(1, _block_numbers(distributions) // (batch * patches * texts))
    own = (distributions * distributions.log()).sum(-1)  # (B, N)
    result = distributions.new_empty(batch, patches, patches)
    for start in range(0, patches, rows_at_once):
        rows, columns = slice(start, start + rows_at_once), slice(start, None)
        # (B, r, 1, T) + (B, 1, n, T) -> (B, r, n, T)
        mixed = distributions[:, rows, None] + distributions[:, None, columns]
        pairs = own[:, rows, None] + own[:, None, columns]
        pairs -= mixed.log().mul_(mixed).sum(-1)
        pairs.div_(2).add_(_LN2).clamp_(0, _LN2)
        result[:, rows, columns] = pairs
        result[:, columns, rows] = pairs.transpose(1, 2)
    return result


@torch.no_grad()
def cosine_affinity(
    features: Float[Tensor, "batch patches channels"], exponent: float
) -> Float[Tensor, "batch patches patches"]:
    """Cosine of the features of each pair of patches, to a power; 0 where it is negative (eq. 5).

    Args:
        features: of any frozen encoder and any length, on the grid of the maps.
        exponent: of the cosine.
    """
    unit = F.normalize(features, dim=-1)
    return (unit @ unit.transpose(1, 2)).clamp_(0, 1).pow_(exponent)


@torch.no_grad()
def pair_factor(
    features: Float[Tensor, "batch patches embed_dim"],
    bank: TextBank | None,
    affinity: AffinityConfig,
) -> Float[Tensor, "batch patches patches"] | None:
    """What the configured kind takes from the features, in 0 … 1; None for plain attention.

    Args:
        features: from `patch_features`, or calibrated ones in the same space; for ``dino`` from
            `wsss.cams.other_features`.
        bank: text features of all classes and backgrounds, where ``affinity.uses_texts``.
    """
    if affinity.factor is None:
        return None
    if not affinity.uses_texts:
        return cosine_affinity(features, affinity.exponent)
    assert bank is not None
    texts = torch.cat([bank.classes, bank.backgrounds]).to(features.device)
    distributions = class_distributions(features, texts, affinity.sharpness)
    return divergences(distributions).div_(-affinity.tau).exp_()  # eq. 4


def pair_weights(
    attention: Float[Tensor, "batch tokens tokens"] | None,
    factor: Float[Tensor, "batch patches patches"] | None,
) -> Float[Tensor, "batch rows rows"]:
    """W: what is balanced and spreads the maps (eq. 6).

    Args:
        attention: mean attention, perhaps with a class token in front; None: of no block.
        factor: from `pair_factor`; None leaves the attention as it is.

    Returns:
        Of the patches alone, where there is a factor.
    """
    if factor is None:
        assert attention is not None
        return attention
    if attention is None:
        return factor
    patches = factor.shape[-1]
    return attention[:, -patches:, -patches:] * factor


def _block_numbers(like: Tensor) -> int:
    """Numbers of a block: few on a CPU, where they stay in the cache."""
    return 1 << (26 if like.is_cuda else 19)
