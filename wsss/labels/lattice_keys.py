"""Numbers that stand for the vertices of a permutohedral lattice: made, sorted, searched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int32, Int64
from torch import Tensor

_BITS = 63  # of a positive int64
_MULTIPLIER = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio, made odd


@dataclass(frozen=True)
class VertexCoding:
    """One number per vertex of the lattice.

    A vertex of remainder k has coordinates ``sides · q_i + k``. The last one follows from the
    others, since they sum to zero. Its key is ``k · 2^bits + Σ stride_i (q_i - least_i)``. A step
    along a direction of the lattice adds the same number to the keys of all vertices of a
    remainder.
    """

    least: tuple[int, ...]
    strides: tuple[int, ...]
    """Of all coordinates but the last, which has 0."""
    bits: int

    @staticmethod
    def of(corners: Int32[Tensor, "sides points"]) -> VertexCoding:
        """The coding for the simplices of these corners, and all neighbours of their vertices.

        Where 63 bits do not hold all combinations, the strides are powers of an odd number modulo
        2^bits. Two of a million vertices then have one key with a probability below 1e-6.
        """
        dimensions = len(corners) - 1
        least = [value - 2 for value in corners[:-1].amin(1).tolist()]
        most = [value + 1 for value in corners[:-1].amax(1).tolist()]
        strides, levels = [], 1
        for low, high in zip(least, most, strict=True):
            strides.append(levels)
            levels *= high - low + 1
        free = _BITS - dimensions.bit_length()
        if levels > 2**free:
            strides = [
                _signed(pow(_MULTIPLIER, power, 2**64)) for power in range(1, dimensions + 1)
            ]
            levels = 2**free
        return VertexCoding(tuple(least), (*strides, 0), (levels - 1).bit_length())

    def keys(
        self, corners: Int32[Tensor, "sides points"], rank: Int64[Tensor, "sides points"]
    ) -> Int64[Tensor, "sides points"]:
        """Of the vertex of each remainder of each point's simplex."""
        keys = torch.zeros_like(rank)
        for index, (low, stride) in enumerate(zip(self.least, self.strides, strict=False)):
            keys[0].add_(corners[index].long() - low, alpha=stride)
        strides = torch.tensor(self.strides, device=keys.device)[:, None].expand(rank.shape)
        by_rank = torch.empty_like(rank).scatter_(0, rank, strides)
        for remainder in range(1, len(keys)):  # one more coordinate is a step lower
            torch.sub(keys[remainder - 1], by_rank[-remainder], out=keys[remainder])
        keys &= 2**self.bits - 1
        return keys.add_(torch.arange(len(keys), device=keys.device)[:, None] << self.bits)

    def neighbours(self, keys: Int64[Tensor, " vertices"]) -> Iterator[Int64[Tensor, " vertices"]]:
        """The key of the next vertex along each direction."""
        sides = len(self.strides)
        remainder = keys >> self.bits
        following = (remainder + 1) % sides << self.bits
        mask = 2**self.bits - 1
        keys = keys & mask
        for stride in self.strides:
            steps = [-stride] * (sides - 1) + [_signed((sum(self.strides) - stride) % 2**64)]
            step = torch.tensor(steps, device=keys.device)[remainder]
            yield step.add_(keys).bitwise_and_(mask).add_(following)


def _signed(value: int) -> int:
    """A number modulo 2^64 as int64 holds it."""
    return value - 2**64 if value >= 2**63 else value


def sort_keys(
    keys: Int64[Tensor, "sides points"], bits: int
) -> tuple[Int64[Tensor, " entries"], Int64[Tensor, " entries"]]:
    """All keys in ascending order, and the point of each.

    Where there is room the point becomes the lowest bits of its key: it is faster to sort numbers
    than to sort their indices.
    """
    sides, points = keys.shape
    room = (points - 1).bit_length()
    if bits + sides.bit_length() + room > _BITS:
        order = keys.flatten().argsort(stable=True)
        return keys.flatten()[order], order % points
    packed = (keys << room).add_(torch.arange(points, device=keys.device)).flatten()
    if packed.device.type == "cpu":
        packed.numpy().sort()  # uses AVX-512 or AVX2; torch takes five times as long
    else:
        packed = packed.sort().values
    return packed >> room, packed & (2**room - 1)


def search_sorted(
    keys: Int64[Tensor, " vertices"], queries: Int64[Tensor, " queries"]
) -> Int64[Tensor, " queries"]:
    """Positions in ascending keys."""
    if keys.device.type == "cpu":  # numpy is faster where they ascend, too
        return torch.from_numpy(np.searchsorted(keys.numpy(), queries.numpy()))
    return torch.searchsorted(keys, queries)
