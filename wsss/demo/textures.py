"""Skies, waters and hills, and the means that all backgrounds are painted with."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from wsss.demo.canvas import Colour, hsv, noise, shade

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in canvas pixels."""
Painter = Callable[[Image.Image, Box, np.random.Generator], None]


def gradient(canvas: Image.Image, box: Box, top: Colour, bottom: Colour) -> None:
    """Fill ``box`` with a vertical blend from ``top`` to ``bottom``."""
    two = Image.fromarray(np.array([[top], [bottom]], dtype=np.uint8))
    size = (box[2] - box[0], box[3] - box[1])
    if min(size) > 0:
        canvas.paste(two.resize(size, Image.Resampling.BILINEAR), box[:2])


def mottle(
    canvas: Image.Image,
    box: Box,
    rng: np.random.Generator,
    colour: Colour,
    cell: tuple[int, int],
    strength: float,
) -> None:
    """Blend ``colour`` into ``box`` through noise with cells of ``cell`` canvas pixels."""
    size = (box[2] - box[0], box[3] - box[1])
    if min(size) <= 0:
        return
    cloth = noise(rng, size, (size[0] // cell[0] + 2, size[1] // cell[1] + 2))
    canvas.paste(colour, box, cloth.point([round(v * strength) for v in range(256)]))


def scatter(box: Box, rng: np.random.Generator, count: int) -> list[tuple[float, float, float]]:
    """Return ``count`` points, far ones first, with their nearness from 0 (top) to 1 (bottom)."""
    near = np.sort(rng.random(count))
    across = rng.uniform(box[0], box[2], count)
    return [
        (float(x), box[1] + float(t) * (box[3] - box[1]), float(t))
        for x, t in zip(across, near, strict=True)
    ]


def sky(canvas: Image.Image, box: Box, rng: np.random.Generator) -> None:
    """Paint a clear, cloudy or evening sky; most skies have clouds."""
    if rng.random() < 0.22:
        top, low = hsv(float(rng.uniform(0.62, 0.78)), 0.4, 0.75), hsv(0.07, 0.4, 0.98)
    else:
        hue = float(rng.uniform(0.53, 0.6))
        top = hsv(hue, float(rng.uniform(0.3, 0.65)), float(rng.uniform(0.8, 0.96)))
        low = hsv(hue, float(rng.uniform(0.08, 0.25)), 0.97)
    gradient(canvas, box, top, low)
    mottle(canvas, box, rng, (250, 248, 246), (70, 26), float(rng.uniform(0.1, 0.4)))
    pen, height = ImageDraw.Draw(canvas), box[3] - box[1]
    for _ in range(int(rng.integers(0, 4))):
        x = float(rng.uniform(box[0], box[2]))
        y = box[1] + height * float(rng.uniform(0.08, 0.6))
        size = float(rng.uniform(10, 26))
        for k in range(5):
            dx, r = (
                (k - 2) * size * 0.75,
                size * float(rng.uniform(0.5, 0.9)) * (1.1 - abs(k - 2) * 0.2),
            )
            pen.ellipse((x + dx - r, y - r * 0.75, x + dx + r, y + r * 0.55), (248, 248, 250))
    if rng.random() < 0.25:
        x, y, r = (
            float(rng.uniform(box[0], box[2])),
            box[1] + height * 0.2,
            float(rng.uniform(12, 20)),
        )
        pen.ellipse((x - r, y - r, x + r, y + r), (255, 236, 150))


def water(canvas: Image.Image, box: Box, rng: np.random.Generator) -> None:
    """Paint a sea or lake surface with waves and glitter."""
    hue = float(rng.uniform(0.5, 0.6))
    deep = hsv(hue, float(rng.uniform(0.5, 0.75)), float(rng.uniform(0.4, 0.7)))
    gradient(canvas, box, shade(deep, 1.35), deep)
    mottle(canvas, box, rng, shade(deep, 0.65), (60, 7), 0.7)
    mottle(canvas, box, rng, (214, 236, 240), (34, 5), 0.3)
    pen = ImageDraw.Draw(canvas)
    for x, y, near in scatter(box, rng, 34):
        long, line = 6 + 20 * near, max(1, round(1 + 2 * near))
        pen.arc((x - long, y - 3, x + long, y + 3 + 4 * near), 200, 340, (226, 242, 246), line)


def underwater(canvas: Image.Image, box: Box, rng: np.random.Generator) -> None:
    """Paint the inside of the sea: light from above, weeds and bubbles."""
    hue = float(rng.uniform(0.48, 0.58))
    deep = hsv(hue, 0.75, float(rng.uniform(0.35, 0.55)))
    gradient(canvas, box, shade(deep, 1.7), shade(deep, 0.8))
    mottle(canvas, box, rng, shade(deep, 1.9), (40, 60), 0.4)
    pen, height = ImageDraw.Draw(canvas), box[3] - box[1]
    floor = box[3] - round(height * float(rng.uniform(0.02, 0.14)))
    gradient(canvas, (box[0], floor, box[2], box[3]), (188, 176, 128), (150, 136, 96))
    for _ in range(int(rng.integers(2, 7))):
        x, tall = float(rng.uniform(box[0], box[2])), height * float(rng.uniform(0.12, 0.4))
        sway, phase = float(rng.uniform(4, 10)), float(rng.uniform(0, 6))
        weed = hsv(float(rng.uniform(0.3, 0.45)), 0.6, float(rng.uniform(0.25, 0.5)))
        stem = [(x + sway * math.sin(phase + k * 0.8), floor + 6 - tall * k / 8) for k in range(9)]
        pen.line(stem, weed, int(rng.integers(5, 11)), joint="curve")
    for x, y, _ in scatter(box, rng, int(rng.integers(6, 18))):
        r = float(rng.uniform(2, 6))
        pen.ellipse((x - r, y - r, x + r, y + r), outline=(206, 236, 240), width=2)


def hills(canvas: Image.Image, box: Box, rng: np.random.Generator, *, peaks: bool) -> None:
    """Draw distant hills, or snowy ``peaks``, that stand on the lower edge of ``box``."""
    pen, base = ImageDraw.Draw(canvas), box[3]
    tone = hsv(
        float(rng.uniform(0.3, 0.65)), float(rng.uniform(0.15, 0.35)), float(rng.uniform(0.5, 0.72))
    )
    for _ in range(int(rng.integers(2, 5))):
        x, wide = float(rng.uniform(box[0], box[2])), float(rng.uniform(70, 150))
        tall = min(float(rng.uniform(24, 80)), (base - box[1]) * 0.75)
        colour = shade(tone, float(rng.uniform(0.85, 1.15)))
        if peaks:
            pen.polygon([(x - wide, base), (x, base - tall), (x + wide, base)], colour)
            cap = [
                (x - wide * 0.3, base - tall * 0.7),
                (x, base - tall),
                (x + wide * 0.3, base - tall * 0.7),
            ]
            pen.polygon(
                [*cap, (x + wide * 0.1, base - tall * 0.6), (x - wide * 0.1, base - tall * 0.62)],
                (246, 248, 252),
            )
        else:
            pen.ellipse((x - wide, base - tall * 0.6, x + wide, base + tall * 0.6), colour)
