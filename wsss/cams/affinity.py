"""Class-aware attention affinity: spread a CAM along the encoder's attention (CLIP-ES).

Eq. 14-19 of docs/methods/clip-es.md. The mean attention between patches is made nearly doubly
stochastic by Sinkhorn rounds, symmetrised and squared; a map, cut to its box mask, is multiplied by
the result. Neither the normalised matrix nor its square is ever formed: the rounds only scale rows
and columns, so they are kept as two vectors, and the product with all maps of an image is taken
factor by factor (eq. 17). That costs a few products of the matrix with as many vectors as there are
classes instead of N^3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wsss.cams.boxes import BoxEdge, box_masks
from wsss.cams.maps import places_in_image, scale_maps
from wsss.config.cams import CamsConfig

_TINY = 1e-30  # keeps a patch that nothing attends to from dividing by zero


@dataclass(frozen=True)
class Affinity:
    """Transition between patches: ``S = (D + D^T) / 2`` with ``D = diag(row) W diag(column)``."""

    weights: Float[Tensor, "batch patches patches"]
    """W, the mean attention between patches."""
    row: Float[Tensor, "batch patches"]
    column: Float[Tensor, "batch patches"]
    power: int = 2

    def matrix(self) -> Float[Tensor, "batch patches patches"]:
        """D, built; for tests and pictures."""
        return self.row.unsqueeze(-1) * self.weights * self.column.unsqueeze(-2)

    def spread(
        self, columns: Float[Tensor, "batch patches columns"]
    ) -> Float[Tensor, "batch patches columns"]:
        """Multiply columns by S to the power, without building it."""
        row, column = self.row.unsqueeze(-1), self.column.unsqueeze(-1)
        for _ in range(self.power):
            forward = row * (self.weights @ (column * columns))
            backward = column * (self.weights.transpose(-2, -1) @ (row * columns))
            columns = (forward + backward) / 2
        return columns


def balance(
    weights: Float[Tensor, "batch patches patches"], *, rounds: int = 3, power: int = 2
) -> Affinity:
    """Sinkhorn: normalise by rounds of dividing by column sums, then by row sums.

    Args:
        weights: mean attention between patches, without the class token; rows are queries.
        rounds: 3 as published; D ends with rows that sum to one.
        power: of the symmetrised matrix.
    """
    row = torch.ones_like(weights[..., :1])
    column = row
    for _ in range(rounds):
        column = 1 / (weights.transpose(-2, -1) @ row).clamp_min(_TINY)
        row = 1 / (weights @ column).clamp_min(_TINY)
    return Affinity(weights, row.squeeze(-1), column.squeeze(-1), power)


def refine_maps(
    affinity: Affinity,
    maps: Float[Tensor, "rows height width"],
    owner: Int[Tensor, " rows"],
    *,
    box_threshold: float = 0.4,
    box_edge: BoxEdge = "inclusive",
) -> Float[Tensor, "rows height width"]:
    """Spread the maps of a batch: T (B . map), the box mask B gates sources, not receivers.

    Args:
        affinity: of the images of the batch.
        maps: values in [0, 1] on the patch grid; rows in the order of their images.
        owner: the image of each row, in ascending order.
        box_threshold: see `box_masks`.
        box_edge: see `box_masks`.

    Returns:
        Refined maps, not scaled again.
    """
    if len(maps) == 0:
        return maps
    gated = maps * box_masks(maps, box_threshold, box_edge)
    batch, patches = affinity.row.shape
    place = places_in_image(owner, batch)
    # Packed rows (R, h, w) -> padded columns (B, N, K), K the most classes of an image
    columns = gated.new_zeros(batch, 1 + int(place.max()), patches)
    columns[owner, place] = gated.flatten(1)
    spread = affinity.spread(columns.transpose(1, 2))
    return spread.transpose(1, 2)[owner, place].view_as(maps)


def refine_as_configured(
    attention: Float[Tensor, "batch tokens tokens"],
    maps: Float[Tensor, "rows height width"],
    owner: Int[Tensor, " rows"],
    cams: CamsConfig,
) -> Float[Tensor, "rows height width"]:
    """`spread_as_configured` along mean attention that still has the class token."""
    return spread_as_configured(attention[:, 1:, 1:], maps, owner, cams)


def spread_as_configured(
    weights: Float[Tensor, "batch patches patches"],
    maps: Float[Tensor, "rows height width"],
    owner: Int[Tensor, " rows"],
    cams: CamsConfig,
) -> Float[Tensor, "rows height width"]:
    """Balance an affinity between patches, spread maps along it and scale them to 0..1 again.

    Args:
        weights: see `balance`.
        maps: see `refine_maps`.
        owner: see `refine_maps`.
        cams: the section.
    """
    affinity = cams.affinity
    spread = refine_maps(
        balance(weights, rounds=affinity.sinkhorn_iterations, power=affinity.power),
        maps,
        owner,
        box_threshold=affinity.box_threshold,
        box_edge=affinity.box_edge,
    )
    return scale_maps(spread, cams.scaling)
