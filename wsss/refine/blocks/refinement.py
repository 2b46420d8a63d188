"""WeCLIP's refinement module (RFM): which blocks' attention the learned affinity trusts.

Eq. 8-12 of docs/methods/weclip.md; ExCEL refines in the same way (eq. 19 of docs/methods/excel.md).
No gradient flows through it: what it gives makes pseudo labels.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wsss.cams.affinity import propagate
from wsss.cams.patch_affinity import pair_weights
from wsss.config.cams import CamsConfig

Distance = Literal["absolute", "signed"]

_TINY = 1e-5


@torch.no_grad()
def block_distances(
    affinity: Float[Tensor, "batch patches patches"],
    attention: Float[Tensor, "batch blocks patches patches"],
    distance: Distance = "absolute",
) -> Float[Tensor, "batch blocks"]:
    """How far each block's attention is from the learned affinity, summed over all pairs.

    Args:
        affinity: A_f, in 0..1.
        attention: head-mean attention of the candidate blocks, without the class token.
        distance: ``absolute`` as in the paper; ``signed`` as in the released code, where the sum of
            A_f is common to all blocks and so takes no part in choosing among them.
    """
    if distance == "signed":
        return affinity.sum((1, 2)).unsqueeze(1) - attention.sum((2, 3))
    if attention.is_cuda:
        return torch.linalg.vector_norm(attention - affinity.unsqueeze(1), 1, dim=(2, 3))
    # Block by block: the differences of all of them at once would leave the cache.
    each = [(affinity - block).abs_().sum((1, 2)) for block in attention.unbind(1)]
    return torch.stack(each, dim=1)


def select_near(distances: Float[Tensor, "batch blocks"]) -> Bool[Tensor, "batch blocks"]:
    """Blocks that are not farther than the mean; at least one per image.

    The paper writes "smaller than", the released code "at most"; they differ only where a distance
    equals the mean. In float32 the mean of equal distances may be rounded to less than they are,
    and the released code then selects none. In float64 the nearest block always counts.
    """
    return distances <= distances.mean(1, keepdim=True, dtype=torch.float64)


@torch.no_grad()
def trusted_affinity(
    affinity: Float[Tensor, "batch patches patches"],
    attention: Float[Tensor, "batch blocks patches patches"],
    selected: Bool[Tensor, "batch blocks"],
) -> Float[Tensor, "batch patches patches"]:
    """R: the mean attention of the selected blocks, weighed by the learned affinity pair by pair.

    `wsss.cams.affinity.balance` makes it doubly stochastic, as it does with plain attention.
    """
    weights = selected / (selected.sum(1, keepdim=True) + _TINY)
    # (B, l) x (B, l, N, N) -> (B, N, N)
    return torch.einsum("bl,blij->bij", weights.to(attention.dtype), attention) * affinity


@torch.no_grad()
def refined_cams(
    attention: Float[Tensor, "batch candidates patches patches"] | None,
    maps: Float[Tensor, "rows height width"],
    image_index: Int[Tensor, " rows"],
    cams: CamsConfig,
    affinity: Float[Tensor, "batch patches patches"] | None = None,
    distance: Distance = "absolute",
    sources: Float[Tensor, "rows height width"] | None = None,
    factor: Float[Tensor, "batch patches patches"] | None = None,
) -> Float[Tensor, "rows height width"]:
    """Spread CAMs of a batch along attention that the learned affinity, if any, trusts.

    Args:
        attention: A_s of the candidate blocks; None where the factor alone is used, before there is
            a learned affinity.
        maps: in 0..1.
        image_index: the image of each row, in ascending order.
        affinity: A_f; None, as before it is learned: the plain mean of the candidates.
        distance: see `block_distances`.
        sources: see `wsss.cams.affinity.propagate_maps`.
        factor: constant affinity that multiplies R (`wsss.cams.patch_affinity.pair_factor`); blocks
            are selected without it.

    Returns:
        M_f, every map scaled to 0..1 by its own extremes.
    """
    if attention is None:
        weights = None
    elif affinity is None:
        weights = attention.mean(1)
    else:
        selected = select_near(block_distances(affinity, attention, distance))
        weights = trusted_affinity(affinity, attention, selected)
    return propagate(pair_weights(weights, factor), maps, image_index, cams, sources)
