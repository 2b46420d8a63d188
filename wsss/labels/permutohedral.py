"""Gaussian filters on the permutohedral lattice (Adams, Baek and Davis, 2010), as sparse products.

Eq. 3-6 of docs/methods/crf.md. A lattice is built once for the features of some points. Each filter
is then ``slice · blur · … · blur · splat``. Values have their channels last, so that a product
reads whole rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int32, Int64
from torch import Tensor

from wsss.labels.lattice_keys import VertexCoding, search_sorted, sort_keys

_NEIGHBOUR = 0.5  # weight in a blur, next to 1 of the vertex itself


@dataclass(frozen=True)
class SparseRows:
    """A sparse matrix by rows: what `torch.nn.functional.embedding_bag` sums.

    That product needs no index in int64 and is the fastest of torch on a CPU: 2 times that of a
    CSR tensor at 21 columns, and equal at 3.
    """

    starts: Int32[Tensor, " rows_and_one"]
    columns: Int32[Tensor, " entries"]
    weights: Float32[Tensor, " entries"]
    width: int
    """Number of columns."""

    def __matmul__(
        self, values: Float32[Tensor, "columns channels"]
    ) -> Float32[Tensor, "rows channels"]:
        return F.embedding_bag(
            self.columns,
            values,
            self.starts,
            mode="sum",
            per_sample_weights=self.weights,
            include_last_offset=True,
        )


@dataclass(frozen=True)
class Lattice:
    """The filter of one kernel for the points of one or several images."""

    splat: SparseRows
    """Vertices by points."""
    blurs: tuple[SparseRows, ...]
    """Vertices by vertices, one per direction of the lattice."""
    slice: SparseRows
    """Points by vertices."""

    def filter(
        self, values: Float32[Tensor, "points channels"]
    ) -> Float32[Tensor, "points channels"]:
        """The weighted sum over all points of the same image (eq. 6)."""
        vertices = self.splat @ values
        for blur in self.blurs:
            vertices = blur @ vertices
        return self.slice @ vertices

    def normalised(self, weight: float = 1.0) -> Lattice:
        """The filter ``weight · D^(-1/2) K D^(-1/2)`` with ``D = diag(K 1)`` (eq. 2).

        The factors become part of the weights of splat and slice, so they cost nothing later.
        """
        ones = self.splat.weights.new_ones(self.splat.width, 1)
        scale = self.filter(ones)[:, 0].clamp_min(torch.finfo(torch.float32).tiny).rsqrt()
        splat, slices = self.splat, self.slice
        corners = len(slices.columns) // len(scale)
        after = (weight * scale).repeat_interleave(corners, output_size=len(slices.columns))
        return Lattice(
            _reweighted(splat, splat.weights * scale[splat.columns]),
            self.blurs,
            _reweighted(slices, slices.weights * after),
        )


def build_lattice(features: Float32[Tensor, "dimensions points"]) -> Lattice:
    """The lattice for points of one image.

    The device is that of the features; this waits for it, and no product does.

    Args:
        features: position and colour of each point, divided by their standard deviations.
    """
    dimensions, points = features.shape
    sides = dimensions + 1
    corners, rank, weights = _simplices(features)
    coding = VertexCoding.of(corners)
    keys, owners = sort_keys(coding.keys(corners, rank), coding.bits)
    is_first = torch.ones_like(keys, dtype=torch.bool)
    torch.ne(keys[1:], keys[:-1], out=is_first[1:])
    firsts = is_first.nonzero()[:, 0]
    # Sorted by remainder first, and every point has one vertex of each remainder.
    offsets = points * torch.arange(sides, device=keys.device)
    entries = (owners.view(sides, points) + offsets[:, None]).flatten()
    starts = F.pad(firsts, (0, 1), value=len(keys)).int()
    splat = SparseRows(starts, owners.int(), weights.flatten()[entries], points)
    vertex = is_first.cumsum(0, dtype=torch.int32) - 1
    vertices = torch.empty_like(vertex).scatter_(0, entries, vertex).view(sides, points)
    rows = torch.arange(0, len(keys) + 1, sides, dtype=torch.int32, device=keys.device)
    gain = 1 / (1 + 2.0**-dimensions)  # undoes what the blurs add
    slices = SparseRows(rows, vertices.t().flatten(), gain * weights.t().flatten(), len(firsts))
    return Lattice(splat, tuple(_blurs(keys[firsts], coding)), slices)


def concatenate(lattices: Sequence[Lattice]) -> Lattice:
    """The filter of several images at once; none sees the points of another."""
    if len(lattices) == 1:
        return lattices[0]
    return Lattice(
        _diagonal([lattice.splat for lattice in lattices]),
        tuple(_diagonal(blurs) for blurs in zip(*(x.blurs for x in lattices), strict=True)),
        _diagonal([lattice.slice for lattice in lattices]),
    )


def _diagonal(blocks: Sequence[SparseRows]) -> SparseRows:
    starts, columns, width, entries = [blocks[0].starts[:1]], [], 0, 0
    for block in blocks:
        starts.append(block.starts[1:] + entries)
        columns.append(block.columns + width)
        width += block.width
        entries += len(block.columns)
    weights = torch.cat([block.weights for block in blocks])
    return SparseRows(torch.cat(starts), torch.cat(columns), weights, width)


def _reweighted(rows: SparseRows, weights: Float32[Tensor, " entries"]) -> SparseRows:
    return SparseRows(rows.starts, rows.columns, weights, rows.width)


def _simplices(
    features: Float32[Tensor, "dimensions points"],
) -> tuple[
    Int32[Tensor, "sides points"], Int64[Tensor, "sides points"], Float32[Tensor, "sides points"]
]:
    """The simplex of the lattice that encloses each point (eq. 3 and 4).

    Returns:
        The corner of remainder 0, divided by dimensions + 1; the rank of each coordinate's
        distance from it, 0 for the largest; the barycentric weight of the corner of each remainder.
    """
    dimensions, points = features.shape
    sides = dimensions + 1
    elevated = features.new_empty(sides, points)
    total = features.new_zeros(points)
    for index in range(dimensions, 0, -1):
        scale = sides * math.sqrt(2 / 3 / (index * (index + 1)))
        scaled = features[index - 1] * scale
        torch.sub(total, scaled, alpha=index, out=elevated[index])
        total += scaled
    elevated[0] = total
    corner = (elevated / sides).round_()
    excess = corner.sum(0).to(torch.int8)
    distance = torch.sub(elevated, corner, alpha=sides)
    rank = torch.arange(sides, dtype=torch.int8, device=features.device)[:, None].repeat(1, points)
    for one in range(dimensions):
        for other in range(one + 1, sides):
            less = (distance[one] < distance[other]).view(torch.int8)
            rank[one] += less
            rank[other] -= less
    # Where the rounded coordinates do not sum to zero, the ones that were rounded most go back.
    rank += excess
    shift = (rank < 0).view(torch.int8) - (rank > dimensions).view(torch.int8)
    rank.add_(shift, alpha=sides)
    corner += shift
    distance.sub_(shift, alpha=sides)
    by_rank = rank.long()
    ordered = torch.empty_like(distance).scatter_(0, by_rank, distance).div_(sides)
    weights = torch.empty_like(distance)
    torch.sub(ordered[:-1].flip(0), ordered[1:].flip(0), out=weights[1:])
    torch.sub(ordered[-1], ordered[0], out=weights[0])
    weights[0] += 1
    return corner.int(), by_rank, weights


def _blurs(keys: Int64[Tensor, " vertices"], coding: VertexCoding) -> Iterator[SparseRows]:
    """The blur along each direction (eq. 5): a vertex and half of its neighbours on both sides.

    Args:
        keys: of all vertices, ascending.
    """
    vertices = len(keys)
    own = torch.arange(vertices, dtype=torch.int32, device=keys.device)
    for following in coding.neighbours(keys):
        position = search_sorted(keys, following).clamp_(max=vertices - 1)
        before = (keys[position] == following).nonzero()[:, 0]
        after = position[before]
        has_after = torch.zeros_like(own)
        has_after[before] = 1
        count = has_after + 1
        count[after] += 1  # every vertex is the next of one other at most
        starts = F.pad(count.cumsum(0, dtype=torch.int32), (1, 0))
        columns = own.new_empty(vertices + 2 * len(before))
        weights = torch.full_like(columns, _NEIGHBOUR, dtype=torch.float32)
        first = starts[:-1]
        columns[first] = own
        weights[first] = 1
        columns[first[before] + 1] = after.int()
        columns[(first + has_after)[after] + 1] = before.int()
        yield SparseRows(starts, columns, weights, vertices)
