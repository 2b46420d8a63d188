"""Maps of large photos that are made row by row, so that no tensor is as large as all labels.

Each class gives any rows of a map; a chain of them reads only the rows that it needs. Interpolation
is that of ``F.interpolate``: weights are those of the whole map, so that stripes have no seams.
They differ from ``F.interpolate`` in the last bits, since its rounding depends on how it was built.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from wsss.compute.packed_rows import to_device

Stripe = Float[Tensor, "1 channels rows columns"]


@runtime_checkable
class Rows(Protocol):
    """A map of which rows can be asked for, from the top to the bottom."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        ...

    def rows(self, first: int, last: int) -> Stripe:
        """Rows from ``first`` to before ``last``."""
        ...


@dataclass(frozen=True)
class Pixels:
    """The levels of a photo, in 0 … 255."""

    photo: UInt8[Tensor, "height width 3"]
    mirrored: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """See `Rows`."""
        return self.photo.shape[0], self.photo.shape[1]

    def rows(self, first: int, last: int) -> Stripe:
        """See `Rows`."""
        levels = self.photo[first:last].permute(2, 0, 1)[None].float()  # (H, W, 3) -> (1, 3, H, W)
        return levels.flip(3) if self.mirrored else levels


class Resized:
    """A map at another size, bilinearly.

    Args:
        size: height and width of the result.
        align_corners: as for ``F.interpolate``.
    """

    def __init__(self, source: Rows, size: tuple[int, int], *, align_corners: bool = False) -> None:
        self.size, self._source, self._corners = size, source, align_corners
        before, after = source.size[0], size[0]
        places = np.arange(after, dtype=np.float64)
        if align_corners:
            places *= (before - 1) / max(1, after - 1)
        else:
            places = np.maximum((places + 0.5) * before / after - 0.5, 0)
        self._above = np.minimum(places.astype(np.int64), before - 1)
        self._below = np.minimum(self._above + 1, before - 1)
        self._weight = torch.from_numpy((places - self._above).astype(np.float32))

    def rows(self, first: int, last: int) -> Stripe:
        """See `Rows`."""
        if self.size == self._source.size:
            return self._source.rows(first, last)
        above, below = self._above[first:last], self._below[first:last]
        start, stop = int(above[0]), int(below[-1]) + 1
        maps = self._source.rows(start, stop)
        wide = F.interpolate(
            maps,
            (stop - start, self.size[1]),
            mode="bilinear",
            align_corners=self._corners,
        )
        weight = to_device(self._weight[first:last, None], maps.device)
        upper, lower = (
            wide.index_select(2, to_device(torch.from_numpy(places - start), maps.device))
            for places in (above, below)
        )
        return upper.lerp_(lower, weight)


@dataclass(frozen=True)
class Window:
    """What a network says of a window."""

    left: int
    logits: Rows
    """At the size of the window."""


@dataclass(frozen=True)
class Logits:
    """The logits of a network on their grid."""

    maps: Stripe

    @property
    def size(self) -> tuple[int, int]:
        """See `Rows`."""
        return self.maps.shape[2], self.maps.shape[3]

    def rows(self, first: int, last: int) -> Stripe:
        """See `Rows`."""
        return self.maps[:, :, first:last]


class Windows:
    """The mean over windows, which enter the network when their rows are asked for.

    Windows above the rows that are asked for are forgotten.

    Args:
        size: height and width of the map; windows may reach over its lower and right edges.
        tops: first rows of the windows, ascending.
        side: height of a window.
        band: all windows at one of the ``tops``.
    """

    def __init__(
        self,
        size: tuple[int, int],
        tops: Sequence[int],
        side: int,
        band: Callable[[int], list[Window]],
    ) -> None:
        self.size, self._tops, self._side, self._band = size, tops, side, band
        self._held: dict[int, list[Window]] = {}

    def rows(self, first: int, last: int) -> Stripe:
        """See `Rows`."""
        total: Tensor | None = None
        for top in self._tops:
            if top + self._side <= first:
                self._held.pop(top, None)
                continue
            if top >= last:
                break
            if top not in self._held:
                self._held[top] = self._band(top)
            start, stop = max(first, top), min(last, top + self._side)
            for window in self._held[top]:
                logits = window.logits.rows(start - top, stop - top)
                if total is None:
                    total = logits.new_zeros(1, logits.shape[1], last - first, self.size[1])
                    times = logits.new_zeros(last - first, self.size[1])
                right = min(self.size[1], window.left + logits.shape[3])
                area = (..., slice(start - first, stop - first), slice(window.left, right))
                total[area] += logits[..., : right - window.left]
                times[area] += 1
        assert total is not None, "windows cover the map"
        return total.div_(times)
