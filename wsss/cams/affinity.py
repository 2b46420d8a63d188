"""Class-aware attention affinity: propagate a CAM along the encoder's attention (CLIP-ES).

Eq. 14-19 of docs/methods/clip-es.md. The mean attention between patches is made nearly doubly
stochastic by Sinkhorn rounds, symmetrised and squared; a map, cut to its box mask, is multiplied by
the result. Neither the normalised matrix nor its square is formed: the rounds only scale rows and
columns, so two vectors represent them, and all maps of an image are multiplied factor by factor
(eq. 17). That costs a few products of the matrix with one vector per class instead of N^3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wsss.cams.boxes import BoxEdge, box_masks
from wsss.cams.maps import scale_maps
from wsss.compute.packed_rows import padded_slots
from wsss.config.cams import CamsConfig

_TINY = 1e-30  # no division by zero for a patch that nothing attends to


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

    def propagate(
        self, columns: Float[Tensor, "batch patches columns"]
    ) -> Float[Tensor, "batch patches columns"]:
        """Multiply columns by S to the power, without building it."""
        row, column = self.row.unsqueeze(-1), self.column.unsqueeze(-1)
        for _ in range(self.power):
            forward = self.weights @ (column * columns)
            backward = self.weights.transpose(-2, -1) @ (row * columns)
            columns = torch.addcmul(column * backward, row, forward)
        return columns / 2**self.power


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
        column = (weights.transpose(-2, -1) @ row).clamp_min_(_TINY).reciprocal_()
        row = (weights @ column).clamp_min_(_TINY).reciprocal_()
    return Affinity(weights, row.squeeze(-1), column.squeeze(-1), power)


def propagate_maps(
    affinity: Affinity,
    maps: Float[Tensor, "rows height width"],
    image_index: Int[Tensor, " rows"],
    *,
    box_threshold: float | None = 0.4,
    box_edge: BoxEdge = "inclusive",
    sources: Float[Tensor, "rows height width"] | None = None,
) -> Float[Tensor, "rows height width"]:
    """Propagate the maps of a batch: T (B . map); the box mask B gates sources, not receivers.

    Args:
        affinity: of the images of the batch.
        maps: values in [0, 1] on the patch grid; rows in the order of their images.
        image_index: the image of each row, in ascending order.
        box_threshold: see `box_masks`; None: no boxes.
        box_edge: see `box_masks`.
        sources: how far each patch counts as a source of each map, in [0, 1]; the boxes are those
            of the maps without it. None: all do.

    Returns:
        Propagated maps, not scaled again.
    """
    if len(maps) == 0:
        return maps
    gated = maps if sources is None else maps * sources
    if box_threshold is not None:
        gated = gated * box_masks(maps, box_threshold, box_edge)
    batch, patches = affinity.row.shape
    image, row, most = padded_slots(image_index, batch, maps.device)
    # Packed rows (R, h, w) -> padded rows (B, K, N), K the most classes of an image
    padded = gated.new_zeros(batch, most, patches)
    padded[image, row] = gated.flatten(1)
    propagated = affinity.propagate(padded.transpose(1, 2))  # (B, N, K)
    return propagated.transpose(1, 2)[image, row].view_as(maps)


def propagate(
    attention: Float[Tensor, "batch tokens tokens"],
    maps: Float[Tensor, "rows height width"],
    image_index: Int[Tensor, " rows"],
    cams: CamsConfig,
    sources: Float[Tensor, "rows height width"] | None = None,
) -> Float[Tensor, "rows height width"]:
    """Balance an affinity between patches, propagate maps with it and scale them to [0, 1] again.

    Args:
        attention: see `balance`; a class token in front of the patches is left out.
        maps: see `propagate_maps`.
        image_index: see `propagate_maps`.
        cams: section ``affinity``.
        sources: see `propagate_maps`.
    """
    affinity = cams.affinity
    patches = maps.shape[1] * maps.shape[2]
    weights = attention[:, -patches:, -patches:]
    propagated = propagate_maps(
        balance(weights, rounds=affinity.sinkhorn_iterations, power=affinity.power),
        maps,
        image_index,
        box_threshold=affinity.box_threshold,
        box_edge=affinity.box_edge,
        sources=sources,
    )
    return scale_maps(propagated, affinity.scaling)
