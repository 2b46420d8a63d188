"""A small vector pen: an object is a list of coloured polygons in its own unit square.

Local coordinates: x to the right, y up, the ground at y = 0, and about one unit tall.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float | int, float | int]
Points = NDArray[np.float64]

SUPERSAMPLE = 3
"""Canvas pixels along one side of an image pixel."""


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Return 8-bit RGB from hue (any real, period 1), saturation and value (clipped to 0..1)."""
    saturation, value = min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0)
    channels = []
    for offset in (5.0, 3.0, 1.0):
        k = (offset + (hue % 1.0) * 6.0) % 6.0
        channels.append(value - value * saturation * max(0.0, min(k, 4.0 - k, 1.0)))
    return (round(channels[0] * 255), round(channels[1] * 255), round(channels[2] * 255))


def shade(colour: Colour, factor: float) -> Colour:
    """Return ``colour`` times ``factor`` (darker below 1, lighter above), clipped to 0..255."""
    r, g, b = (min(255, max(0, round(channel * factor))) for channel in colour)
    return (r, g, b)


def jitter(rng: np.random.Generator, colour: Colour, amount: float = 14.0) -> Colour:
    """Return ``colour`` made lighter or darker by about ``amount`` levels, its hue kept roughly."""
    steps = rng.normal(0.0, amount) + rng.normal(0.0, amount * 0.35, 3)
    r, g, b = (min(255, max(0, round(c + float(d)))) for c, d in zip(colour, steps, strict=True))
    return (r, g, b)


def noise(rng: np.random.Generator, size: tuple[int, int], cells: tuple[int, int]) -> Image.Image:
    """Return smooth value noise as an ``L`` image.

    Args:
        rng: source of the grid values.
        size: width and height in pixels.
        cells: columns and rows of the random grid that is stretched over ``size``.
    """
    grid = rng.integers(0, 256, (max(cells[1], 2), max(cells[0], 2)), dtype=np.uint8)
    return Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC)


def smooth(points: Sequence[Point], *, closed: bool, steps: int = 6) -> Points:
    """Return a Catmull-Rom curve through ``points`` (at least 2) as an ``(n, 2)`` array."""
    p = np.asarray(points, dtype=np.float64)
    if closed:
        p = np.concatenate([p[-1:], p, p[:2]])
    else:
        p = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    t = (np.arange(steps) / steps)[None, :, None]
    a, b, c, d = (p[i : len(p) - 3 + i, None, :] for i in range(4))
    curve = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    flat = curve.reshape(-1, 2)
    return flat if closed else np.concatenate([flat, p[-2:-1]])


@dataclass
class Part:
    """One polygon: ``points`` in local units; ``clip`` is the part that it may not leave."""

    points: Points
    colour: Colour
    outline: bool
    clip: int | None


@dataclass
class Pen:
    """Collects the parts of one object, back to front."""

    parts: list[Part] = field(default_factory=list)

    def polygon(
        self,
        points: Sequence[Point] | Points,
        colour: Colour,
        *,
        outline: bool = True,
        clip: int | None = None,
    ) -> int:
        """Add a polygon and return its index, which later parts may name as ``clip``."""
        self.parts.append(Part(np.asarray(points, dtype=np.float64), colour, outline, clip))
        return len(self.parts) - 1

    def curve(
        self,
        points: Sequence[Point],
        colour: Colour,
        *,
        outline: bool = True,
        clip: int | None = None,
    ) -> int:
        """Add the smooth closed shape through ``points``."""
        return self.polygon(smooth(points, closed=True), colour, outline=outline, clip=clip)

    def ellipse(
        self,
        centre: Point,
        radii: Point,
        colour: Colour,
        *,
        turn: float = 0.0,
        outline: bool = True,
        clip: int | None = None,
    ) -> int:
        """Add an ellipse turned by ``turn`` radians."""
        angle = np.arange(28) * (2 * math.pi / 28)
        x, y = radii[0] * np.cos(angle), radii[1] * np.sin(angle)
        c, s = math.cos(turn), math.sin(turn)
        points = np.stack([centre[0] + c * x - s * y, centre[1] + s * x + c * y], axis=1)
        return self.polygon(points, colour, outline=outline, clip=clip)

    def limb(
        self,
        points: Sequence[Point],
        widths: Point,
        colour: Colour,
        *,
        outline: bool = True,
        clip: int | None = None,
    ) -> int:
        """Add a round-ended stroke along ``points``, tapering between two ``widths``."""
        path = smooth(points, closed=False, steps=5) if len(points) > 2 else np.asarray(points)
        along = np.gradient(path, axis=0)
        along /= np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)[:, None]
        half = np.linspace(widths[0], widths[1], len(path))[:, None] / 2
        normal = np.stack([-along[:, 1], along[:, 0]], axis=1)
        arc = (np.arange(1, 6) / 6 * math.pi)[:, None]
        tip = path[-1] + half[-1] * (np.cos(arc) * normal[-1] + np.sin(arc) * along[-1])
        root = path[0] - half[0] * (np.cos(arc) * normal[0] + np.sin(arc) * along[0])
        sides = [path + half * normal, tip, (path - half * normal)[::-1], root]
        return self.polygon(np.concatenate(sides), colour, outline=outline, clip=clip)


@dataclass(frozen=True)
class Placement:
    """Where an object stands: ground point and height in canvas pixels, turn in radians."""

    x: float
    y: float
    height: float
    mirror: bool
    turn: float


@dataclass
class Layer:
    """One drawn object: ``rgb`` and its 0/255 ``alpha``, with the canvas position of its corner."""

    rgb: Image.Image
    alpha: Image.Image
    corner: tuple[int, int]


def _place(points: Points, at: Placement) -> Points:
    x = -points[:, 0] if at.mirror else points[:, 0]
    y = -points[:, 1]
    c, s = math.cos(at.turn), math.sin(at.turn)
    moved = np.stack([at.x + at.height * (c * x - s * y), at.y + at.height * (s * x + c * y)], 1)
    # Rounding hides last-bit differences of cos and sin between processors from the rasteriser.
    return np.round(moved, 2)


def draw(pen: Pen, at: Placement, rng: np.random.Generator, light: float) -> Layer:
    """Rasterise the parts of ``pen`` and shade them.

    Args:
        at: its placement on the canvas.
        rng: source of its surface texture.
        light: side the light comes from, -1 (left) to 1 (right).
    """
    placed = [_place(part.points, at) for part in pen.parts]
    low = np.floor(np.min([p.min(axis=0) for p in placed], axis=0)).astype(int) - 4
    high = np.ceil(np.max([p.max(axis=0) for p in placed], axis=0)).astype(int) + 5
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    rgb, alpha = Image.new("RGB", size), Image.new("L", size)
    on_rgb, on_alpha = ImageDraw.Draw(rgb), ImageDraw.Draw(alpha)
    line = max(2, round(at.height * 0.012))
    for part, points in zip(pen.parts, placed, strict=True):
        flat = [(float(x), float(y)) for x, y in points - low]
        if part.clip is not None:
            inside, shape = Image.new("L", size), Image.new("L", size)
            base = [(float(x), float(y)) for x, y in placed[part.clip] - low]
            ImageDraw.Draw(inside).polygon(base, fill=255)
            ImageDraw.Draw(shape).polygon(flat, fill=255)
            rgb.paste(part.colour, mask=ImageChops.darker(inside, shape))
            continue
        on_rgb.polygon(flat, fill=part.colour)
        on_alpha.polygon(flat, fill=255)
        if part.outline:
            edge = shade(part.colour, 0.55)
            on_rgb.line([*flat, flat[0]], fill=edge, width=line, joint="curve")
            on_alpha.line([*flat, flat[0]], fill=255, width=line, joint="curve")
    return Layer(_shaded(rgb, rng, light), alpha, (int(low[0]), int(low[1])))


def _shaded(rgb: Image.Image, rng: np.random.Generator, light: float) -> Image.Image:
    """Multiply by a light that falls from above and one side, and by a mottled surface."""
    width, height = rgb.size
    down = np.linspace(1.13, 0.80, height, dtype=np.float32)[:, None]
    across = np.linspace(1 - 0.12 * light, 1 + 0.12 * light, width, dtype=np.float32)[None, :]
    coarse = noise(rng, rgb.size, (width // 16 + 2, height // 16 + 2))
    fine = noise(rng, rgb.size, (width // 5 + 2, height // 5 + 2))
    mottle = np.asarray(coarse, np.float32) * (0.16 / 255) + np.asarray(fine, np.float32) * (
        0.12 / 255
    )
    lit = np.asarray(rgb, np.float32) * (down * across * (0.86 + mottle))[..., None]
    return Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))
