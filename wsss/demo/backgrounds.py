"""Backgrounds: habitats with a horizon, and how often each class occurs in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image

from wsss.demo import grounds, indoors, textures


@dataclass(frozen=True)
class Background:
    """A painted habitat.

    Attributes:
        canvas: the picture in canvas pixels.
        horizon: row above which nothing stands, in canvas pixels.
        words: what is visible in it, the main word first.
    """

    canvas: Image.Image
    horizon: int
    words: tuple[str, ...]


HABITATS: Final[Mapping[str, Mapping[str, float]]] = {
    # Strong correlations on purpose: a boat is nearly always on water and a car on a road, so that
    # activation maps leak onto the background, as they do on photographs.
    "bird": {"air": 0.4, "meadow": 0.2, "lake": 0.1, "room": 0.1, "snow": 0.1, "beach": 0.1},
    "boat": {"lake": 0.92, "beach": 0.08},
    "bottle": {"room": 0.64, "beach": 0.16, "meadow": 0.1, "reef": 0.1},
    "car": {"road": 0.86, "snow": 0.06, "meadow": 0.08},
    "cat": {"room": 0.6, "meadow": 0.22, "road": 0.12, "snow": 0.06},
    "fish": {"reef": 0.86, "beach": 0.08, "room": 0.06},
    "horse": {"meadow": 0.62, "beach": 0.16, "snow": 0.12, "road": 0.1},
    "house": {"meadow": 0.4, "snow": 0.3, "road": 0.22, "beach": 0.08},
    "tree": {"meadow": 0.4, "snow": 0.24, "road": 0.2, "beach": 0.16},
    "umbrella": {"beach": 0.42, "road": 0.18, "room": 0.16, "meadow": 0.14, "snow": 0.1},
}
"""Frequency of each class in each habitat (rows sum to 1)."""

PLACES: Final = ("lake", "reef", "meadow", "road", "beach", "snow", "air", "room")
_GROUNDS: Final[Mapping[str, tuple[str, textures.Painter]]] = {
    "meadow": ("grass", grounds.grass),
    "road": ("road", grounds.road),
    "beach": ("sand", grounds.sand),
    "snow": ("snow", grounds.snow),
}


def paint(habitat: str, rng: np.random.Generator, size: tuple[int, int]) -> Background:
    """Paint a habitat on a canvas of ``size`` (width, height).

    Raises:
        ValueError: the habitat is none of `PLACES`.
    """
    if habitat not in PLACES:
        raise ValueError(f"unknown habitat {habitat!r}; expected one of {', '.join(PLACES)}")
    width, height = size
    canvas = Image.new("RGB", size)
    if habitat == "reef":
        textures.underwater(canvas, (0, 0, width, height), rng)
        return Background(canvas, round(height * 0.1), ("water",))
    if habitat == "air":
        textures.sky(canvas, (0, 0, width, height), rng)
        land = height
        if rng.random() < 0.5:
            land = round(height * float(rng.uniform(0.84, 0.94)))
            grounds.grass(canvas, (0, land, width, height), rng)
        words = ("sky", "cloud") if land == height else ("sky", "cloud", "grass")
        return Background(canvas, round(height * 0.08), words)
    horizon = round(height * float(rng.uniform(0.3, 0.52)))
    above, below = (0, 0, width, horizon), (0, horizon, width, height)
    if habitat == "room":
        horizon = round(height * float(rng.uniform(0.5, 0.68)))
        indoors.wall(canvas, (0, 0, width, horizon), rng)
        indoors.floor(canvas, (0, horizon, width, height), rng)
        return Background(canvas, horizon, ("floor", "wall"))
    textures.sky(canvas, above, rng)
    distant = ["sky"]
    if rng.random() < 0.45:
        textures.hills(canvas, above, rng, peaks=habitat in ("snow", "lake") or rng.random() < 0.3)
        distant.append("mountain")
    if habitat == "lake":
        textures.water(canvas, below, rng)
        return Background(canvas, horizon, ("water", *distant))
    if habitat == "beach" and rng.random() < 0.5:
        sea = (0, max(0, horizon - round(height * 0.1)), width, horizon)
        textures.water(canvas, sea, rng)
        distant.append("water")
    word, painter = _GROUNDS[habitat]
    painter(canvas, below, rng)
    return Background(canvas, horizon, (word, *distant))
