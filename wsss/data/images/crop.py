"""Random square crops of photos, labels and maps (eq. 21 of docs/methods/weclip.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8
from PIL import Image

_MAX_DRAWS = 10  # of a position; the segmenters' crops, by mmsegmentation, have one more


@dataclass(frozen=True)
class Crop:
    """A square window of a scaled, perhaps mirrored photo; it may extend beyond the edges."""

    scaled: tuple[int, int]
    """Height and width of the scaled photo."""
    top: int
    """First row of the window in the scaled photo; negative: padding above."""
    left: int
    """First column, counted after mirroring."""
    mirrored: bool
    side: int
    """Height and width of the window."""

    def photo(
        self,
        image: UInt8[np.ndarray, "height width 3"],
        *,
        smooth: bool = True,
    ) -> UInt8[np.ndarray, "side side 3"]:
        """Cut the photo, scaled bilinearly; padding is black.

        ``smooth`` averages over more pixels where the photo shrinks, as Pillow does; OpenCV does
        not.
        """
        size = (self.scaled[1], self.scaled[0])
        if smooth:
            scaled = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
            pixels = np.asarray(scaled)
        else:
            pixels = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        if self.mirrored:
            pixels = pixels[:, ::-1]
        window = np.zeros((self.side, self.side, 3), np.uint8)
        rows, columns = self._overlap()
        window[rows, columns] = pixels[_shifted(rows, self.top), _shifted(columns, self.left)]
        return window

    def valid(self) -> Bool[np.ndarray, "side side"]:
        """False in padding."""
        valid = np.zeros((self.side, self.side), bool)
        valid[self._overlap()] = True
        return valid

    def _overlap(self) -> tuple[slice, slice]:
        """Rows and columns of the window that lie on the photo."""
        starts = zip((self.top, self.left), self.scaled, strict=True)
        rows, columns = (
            slice(max(0, -start), max(0, min(self.side, size - start))) for start, size in starts
        )
        return rows, columns

    def labels(
        self, labels: UInt8[np.ndarray, "h w"], outside: int
    ) -> UInt8[np.ndarray, "side side"]:
        """Cut a label map of the photo, of any size: nearest label, ``outside`` in padding."""
        centres = zip(self._centres(self.side), labels.shape, strict=True)
        rows, columns = (np.clip(x * n, 0, n - 1).astype(np.intp) for x, n in centres)
        return np.where(self.valid(), labels[np.ix_(rows, columns)], np.uint8(outside))

    def maps(
        self, maps: Float32[np.ndarray, "classes h w"], grid: int
    ) -> Float32[np.ndarray, "classes grid grid"]:
        """Sample maps of the photo at the centres of a ``grid`` by ``grid`` grid of the window.

        Bilinear between cell centres, edges repeated; 0 where a centre lies in padding.
        """
        down, across = self._centres(grid)
        rows, columns = _linear(down, maps.shape[1]), _linear(across, maps.shape[2])
        # (g, h) x (K, h, w) x (w, g) -> (K, g, g)
        return (rows @ maps @ columns.T).astype(np.float32)

    def _centres(self, count: int) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """Centres of ``count`` equal rows and columns of the window, as shares of the photo."""
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
    corner: bool = False,
    accept: Callable[[Crop], bool] | None = None,
) -> Crop:
    """Draw scale, mirroring and position of a crop.

    A larger photo is cut anywhere.

    Args:
        source: height and width of the photo.
        side: height and width of the window, pixels.
        scale_range: the factor on the photo's size is drawn evenly from it.
        generator: four numbers are drawn from it, and two more for each further position.
        corner: whether a photo smaller than the window lies in its upper left corner, else anywhere
            inside it.
        accept: whether a crop is accepted; if not, its position is drawn again, at most nine times.
    """
    factor = generator.uniform(*scale_range)
    mirrored = bool(generator.random() < 0.5)
    height, width = (max(1, round(size * factor)) for size in source)
    for _ in range(_MAX_DRAWS if accept else 1):
        top, left = (
            int(generator.integers(0 if corner else min(0, size - side), max(0, size - side) + 1))
            for size in (height, width)
        )
        crop = Crop((height, width), top, left, mirrored, side)
        if accept is None or accept(crop):
            break
    return crop


def _shifted(rows: slice, start: int) -> slice:
    return slice(rows.start + start, rows.stop + start)


def _linear(centres: Float64[np.ndarray, " n"], cells: int) -> Float64[np.ndarray, "n cells"]:
    """Weights of bilinear sampling along one axis; a row of zeros outside 0..1."""
    position = np.clip(centres * cells - 0.5, 0, cells - 1)
    below = np.minimum(position.astype(np.intp), max(cells - 2, 0))
    fraction = position - below
    weights = np.zeros((len(centres), cells))
    rows = np.arange(len(centres))
    weights[rows, below] = 1 - fraction
    weights[rows, np.minimum(below + 1, cells - 1)] += fraction
    weights[(centres < 0) | (centres > 1)] = 0
    return weights
