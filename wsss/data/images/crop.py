"""Random square crops of scaled photos, and what else is known of a photo cut the same way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8
from PIL import Image

_DRAWS = 10  # of a place that is accepted


@dataclass(frozen=True)
class Crop:
    """A square window of a scaled, perhaps mirrored photo; it may reach over the edges."""

    scaled: tuple[int, int]
    """Height and width to which it is scaled."""
    top: int
    """Row of the scaled photo at which the window begins; negative: padding above."""
    left: int
    """The same for columns, counted after mirroring."""
    mirrored: bool
    side: int

    def photo(
        self, image: UInt8[np.ndarray, "height width 3"], outside: tuple[int, int, int] = (0, 0, 0)
    ) -> UInt8[np.ndarray, "side side 3"]:
        """Cut the photo (bilinear scaling), ``outside`` in padding.

        Eq. 21 of docs/methods/weclip.md.
        """
        height, width = self.scaled
        scaled = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(scaled)
        if self.mirrored:
            pixels = pixels[:, ::-1]
        out = np.full((self.side, self.side, 3), outside, np.uint8)
        rows, columns = _inside(self.top, height, self.side), _inside(self.left, width, self.side)
        out[rows, columns] = pixels[_shifted(rows, self.top), _shifted(columns, self.left)]
        return out

    def valid(self) -> Bool[np.ndarray, "side side"]:
        """False in padding."""
        inside = np.zeros((self.side, self.side), bool)
        rows = _inside(self.top, self.scaled[0], self.side)
        inside[rows, _inside(self.left, self.scaled[1], self.side)] = True
        return inside

    def labels(
        self, labels: UInt8[np.ndarray, "h w"], outside: int
    ) -> UInt8[np.ndarray, "side side"]:
        """Cut a label map of the photo, of any size: nearest, ``outside`` in padding."""
        places = zip(self._places(self.side), labels.shape, strict=True)
        rows, columns = (np.clip(at * n, 0, n - 1).astype(np.intp) for at, n in places)
        cut = np.full((self.side, self.side), outside, np.uint8)
        np.copyto(cut, labels[np.ix_(rows, columns)], where=self.valid())
        return cut

    def maps(
        self, maps: Float32[np.ndarray, "classes h w"], grid: int
    ) -> Float32[np.ndarray, "classes grid grid"]:
        """Sample maps of the photo at the centres of a ``grid`` by ``grid`` grid of the window.

        Bilinear between cell centres, edges repeated; 0 where a centre lies in padding.
        """
        down, across = self._places(grid)
        rows = _linear(down, maps.shape[1])
        columns = _linear(across, maps.shape[2])
        # (g, h) x (K, h, w) x (w, g) -> (K, g, g)
        cut: Float32[np.ndarray, "classes grid grid"] = (rows @ maps @ columns.T).astype(np.float32)
        return cut

    def _places(self, count: int) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """Where the centres of ``count`` equal rows and columns lie in the photo, as shares."""
        centres = (np.arange(count) + 0.5) * (self.side / count)
        down = (centres + self.top) / self.scaled[0]
        across = (centres + self.left) / self.scaled[1]
        return down, 1 - across if self.mirrored else across


def draw_crop(
    source: tuple[int, int],
    side: int,
    scale_range: tuple[float, float],
    generator: np.random.Generator,
    *,
    accept: Callable[[Crop], bool] | None = None,
) -> Crop:
    """Draw scale, mirroring and place of a crop.

    A photo that is smaller than the window lies anywhere inside it; a larger one is cut anywhere.

    Args:
        source: height and width of the photo.
        side: of the window, pixels.
        scale_range: the factor on the photo's own size is drawn evenly from it.
        generator: where the numbers come from; four are drawn, and two more for each new place.
        accept: asked of a crop; after a no the place is drawn anew, ten times at most.
    """
    factor = generator.uniform(*scale_range)
    mirrored = bool(generator.random() < 0.5)
    height, width = (max(1, round(size * factor)) for size in source)
    for _ in range(_DRAWS if accept else 1):
        top, left = (
            int(generator.integers(min(0, size - side), max(0, size - side) + 1))
            for size in (height, width)
        )
        crop = Crop((height, width), top, left, mirrored, side)
        if accept is None or accept(crop):
            break
    return crop


def _inside(start: int, size: int, side: int) -> slice:
    """Rows of the window that lie on the photo."""
    return slice(max(0, -start), max(0, min(side, size - start)))


def _shifted(rows: slice, start: int) -> slice:
    return slice(rows.start + start, rows.stop + start)


def _linear(places: Float64[np.ndarray, " n"], cells: int) -> Float64[np.ndarray, "n cells"]:
    """Weights of bilinear sampling along one axis; a row of zeros outside 0..1."""
    at = np.clip(places * cells - 0.5, 0, cells - 1)
    below = np.minimum(at.astype(np.intp), max(cells - 2, 0))
    share = at - below
    weights = np.zeros((len(places), cells))
    every = np.arange(len(places))
    weights[every, below] = 1 - share
    weights[every, np.minimum(below + 1, cells - 1)] += share
    weights[(places < 0) | (places > 1)] = 0
    return weights
