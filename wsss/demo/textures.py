"""Grounds and skies: what backgrounds are painted with."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from wsss.demo.canvas import Colour, hsv, jitter, noise, shade

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


def _scatter(box: Box, rng: np.random.Generator, count: int) -> list[tuple[float, float, float]]:
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
            dx, r = (k - 2) * size * 0.75, size * float(rng.uniform(0.5, 0.9)) * (1.1 - abs(k - 2) * 0.2)
            pen.ellipse((x + dx - r, y - r * 0.75, x + dx + r, y + r * 0.55), (248, 248, 250))
    if rng.random() < 0.25:
        x, y, r = float(rng.uniform(box[0], box[2])), box[1] + height * 0.2, float(rng.uniform(12, 20))
        pen.ellipse((x - r, y - r, x + r, y + r), (255, 236, 150))


def water(canvas: Image.Image, box: Box, rng: np.random.Generator) -> None:
    """Paint a sea or lake surface with waves and glitter."""
    hue = float(rng.uniform(0.5, 0.6))
    deep = hsv(hue, float(rng.uniform(0.5, 0.75)), float(rng.uniform(0.4, 0.7)))
    gradient(canvas, box, shade(deep, 1.35), deep)
    mottle(canvas, box, rng, shade(deep, 0.65), (60, 7), 0.7)
    mottle(canvas, box, rng, (214, 236, 240), (34, 5), 0.3)
    pen = ImageDraw.Draw(canvas)
    for x, y, near in _scatter(box, rng, 34):
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
        stem = [
            (x + sway * math.sin(phase + k * 0.8), floor + 6 - tall * k / 8) for k in range(9)
        ]
        pen.line(stem, weed, int(rng.integers(5, 11)), joint="curve")
    for x, y, _ in _scatter(box, rng, int(rng.integers(6, 18))):
        r = float(rng.uniform(2, 6))
        pen.ellipse((x - r, y - r, x + r, y + r), outline=(206, 236, 240), width=2)


def grass(canvas: Image.Image, box: Box, rng: np.random.Generator) -> None:
    """Paint a meadow with blades, flowers and low bushes."""
    green = hsv(float(rng.uniform(0.2, 0.34)), float(rng.uniform(0.4, 0.7)), float(rng.uniform(0.45, 0.72)))
    gradient(canvas, box, shade(green, 1.15), shade(green, 0.85))
    mottle(canvas, box, rng, shade(green, 0.62), (34, 16), 0.6)
    mottle(canvas, box, rng, shade(green, 1.4), (7, 7), 0.45)
    pen = ImageDraw.Draw(canvas)
    petals = hsv(float(rng.random()), 0.6, 0.95)
    for k, (x, y, near) in enumerate(_scatter(box, rng, 110)):
        tall = 3 + 9 * near
        if k % 9 == 0 and rng.random() < 0.6:
            r = 2 + 3 * near
            pen.ellipse((x - r, y - r, x + r, y + r), petals)
            pen.ellipse((x - r / 2, y - r / 2, x + r / 2, y + r / 2), (250, 220, 90))
        else:
            tip = (x + float(rng.uniform(-3, 3)), y - tall)
            pen.line([(x, y), tip], shade(green, float(rng.uniform(0.6, 1.35))), 2)
    if rng.random() < 0.4:
        x, y, r = float(rng.uniform(box[0], box[2])), box[1] + 4.0, float(rng.uniform(14, 30))
        for dx in (-r, 0.0, r * 0.9):
            pen.ellipse((x + dx - r, y - r * 0.6, x + dx + r, y + r * 0.5), shade(green, 0.7))


def road(canvas: Image.Image, box: Box, rng: np.random.Generator) -> None:
    """Paint a paved road with markings between a verge and a kerb."""
    verge = round((box[3] - box[1]) * float(rng.uniform(0.1, 0.24)))
    field = hsv(float(rng.uniform(0.12, 0.33)), 0.4, 0.6)
    gradient(canvas, (box[0], box[1], box[2], box[1] + verge), field, shade(field, 0.85))
    grey = float(rng.uniform(0.34, 0.55))
    tar = hsv(float(rng.uniform(0.5, 0.75)), 0.06, grey)
    lane = (box[0], box[1] + verge, box[2], box[3])
    gradient(canvas, lane, shade(tar, 1.1), shade(tar, 0.9))
    mottle(canvas, lane, rng, shade(tar, 0.7), (5, 4), 0.5)
    mottle(canvas, lane, rng, shade(tar, 1.3), (50, 12), 0.3)
    pen = ImageDraw.Draw(canvas)
    pen.rectangle((box[0], lane[1] - 5, box[2], lane[1] + 2), (190, 188, 182))
    y = lane[1] + (lane[3] - lane[1]) * float(rng.uniform(0.35, 0.7))
    paint = (238, 236, 226) if rng.random() < 0.7 else (240, 200, 80)
    start = int(rng.integers(-60, 0))
    for x in range(start, box[2], 78):
        pen.polygon([(x, y), (x + 44, y), (x + 40, y + 9), (x - 6, y + 9)], paint)


def sand(canvas: Image.Image, box: Box, rng: np.random.Generator) -> None:
    """Paint a beach or a desert with ripples, pebbles and shells."""
    tone = hsv(float(rng.uniform(0.09, 0.13)), float(rng.uniform(0.25, 0.45)), float(rng.uniform(0.8, 0.95)))
    gradient(canvas, box, shade(tone, 1.05), shade(tone, 0.9))
    mottle(canvas, box, rng, shade(tone, 0.72), (60, 9), 0.5)
    mottle(canvas, box, rng, shade(tone, 0.75), (4, 4), 0.3)
    pen = ImageDraw.Draw(canvas)
    for x, y, near in _scatter(box, rng, int(rng.integers(8, 26))):
        r = 1.5 + 4 * near
        pebble = jitter(rng, (168, 150, 130), 24)
        pen.ellipse((x - r, y - r * 0.7, x + r, y + r * 0.7), pebble)
    if rng.random() < 0.35:
        x, y = float(rng.uniform(box[0], box[2])), (box[1] * 0.3 + box[3] * 0.7)
        arms = [
            (x + (13 if k % 2 else 5.5) * math.cos(0.628 * k), y + (9 if k % 2 else 4) * math.sin(0.628 * k))
            for k in range(10)
        ]
        pen.polygon(arms, (226, 120, 84))


def snow(canvas: Image.Image, box: Box, rng: np.random.Generator) -> None:
    """Paint a snow field with blue hollows and a few stones."""
    gradient(canvas, box, (244, 248, 252), (222, 230, 240))
    mottle(canvas, box, rng, (176, 196, 222), (70, 20), 0.6)
    mottle(canvas, box, rng, (255, 255, 255), (9, 7), 0.4)
    pen = ImageDraw.Draw(canvas)
    for x, y, near in _scatter(box, rng, int(rng.integers(2, 8))):
        r = 3 + 7 * near
        pen.ellipse((x - r, y - r * 0.6, x + r, y + r * 0.6), jitter(rng, (132, 136, 146), 12))
        pen.ellipse((x - r, y - r * 0.75, x + r, y + r * 0.1), (248, 250, 253))


def wall(canvas: Image.Image, box: Box, rng: np.random.Generator) -> None:
    """Paint an indoor wall: bricks, stripes, dots or plain, with a picture or a window."""
    tone = hsv(float(rng.random()), float(rng.uniform(0.08, 0.38)), float(rng.uniform(0.65, 0.92)))
    gradient(canvas, box, tone, shade(tone, 0.92))
    pen, kind = ImageDraw.Draw(canvas), int(rng.integers(4))
    other = shade(tone, float(rng.choice([0.82, 1.12])))
    if kind == 0:
        gradient(canvas, box, (182, 104, 82), (160, 88, 70))
        for row, y in enumerate(range(box[1], box[3], 21)):
            pen.rectangle((box[0], y, box[2], y + 3), (206, 190, 176))
            for x in range(box[0] - (24 if row % 2 else 0), box[2], 48):
                pen.rectangle((x, y, x + 3, y + 21), (206, 190, 176))
    elif kind == 1:
        for x in range(box[0], box[2], int(rng.integers(30, 60))):
            pen.rectangle((x, box[1], x + 14, box[3]), other)
    elif kind == 2:
        for row, y in enumerate(range(box[1] + 10, box[3], 30)):
            for x in range(box[0] + (15 if row % 2 else 0), box[2], 30):
                pen.ellipse((x - 5, y - 5, x + 5, y + 5), other)
    mottle(canvas, box, rng, shade(tone, 0.7), (80, 60), 0.25)
    if rng.random() < 0.6:
        x, y = float(rng.uniform(box[0], box[2] * 0.8)), box[1] + float(rng.uniform(14, 50))
        wide, high = float(rng.uniform(50, 90)), float(rng.uniform(45, 80))
        pen.rectangle((x, y, x + wide, y + high), (112, 78, 52))
        inside = hsv(float(rng.random()), 0.35, 0.85)
        pen.rectangle((x + 6, y + 6, x + wide - 6, y + high - 6), inside)
        pen.rectangle((x + 6, y + high * 0.6, x + wide - 6, y + high - 6), shade(inside, 0.75))


def floor(canvas: Image.Image, box: Box, rng: np.random.Generator) -> None:
    """Paint an indoor floor: planks, tiles or carpet, sometimes with a rug."""
    wood = hsv(float(rng.uniform(0.05, 0.1)), float(rng.uniform(0.35, 0.6)), float(rng.uniform(0.5, 0.8)))
    gradient(canvas, box, shade(wood, 1.08), shade(wood, 0.9))
    pen, kind, height = ImageDraw.Draw(canvas), int(rng.integers(3)), box[3] - box[1]
    middle = (box[0] + box[2]) / 2
    if kind < 2:
        mottle(canvas, box, rng, shade(wood, 0.7), (40, 5), 0.5)
        for k in range(-9, 10):
            far, near = middle + k * 36, middle + k * 66
            pen.line([(far, box[1]), (near, box[3])], shade(wood, 0.65), 2)
    else:
        tile = hsv(float(rng.random()), 0.12, 0.82)
        gradient(canvas, box, tile, shade(tile, 0.9))
        for k in range(-9, 10):
            pen.line([(middle + k * 40, box[1]), (middle + k * 74, box[3])], shade(tile, 0.75), 3)
        for k in range(1, 5):
            y = box[1] + height * (k / 5) ** 1.4
            pen.line([(box[0], y), (box[2], y)], shade(tile, 0.75), 3)
    pen.rectangle((box[0], box[1] - 7, box[2], box[1] + 2), (236, 230, 220))
    if rng.random() < 0.4:
        rug, x, y = hsv(float(rng.random()), 0.55, 0.65), float(rng.uniform(box[0], box[2])), box[1] + height * 0.6
        pen.ellipse((x - 110, y - 28, x + 110, y + 28), rug)
        pen.ellipse((x - 92, y - 22, x + 92, y + 22), outline=shade(rug, 1.4), width=4)


def hills(canvas: Image.Image, box: Box, rng: np.random.Generator, *, peaks: bool) -> None:
    """Draw distant hills, or snowy ``peaks``, that stand on the lower edge of ``box``."""
    pen, base = ImageDraw.Draw(canvas), box[3]
    tone = hsv(float(rng.uniform(0.3, 0.65)), float(rng.uniform(0.15, 0.35)), float(rng.uniform(0.5, 0.72)))
    for _ in range(int(rng.integers(2, 5))):
        x, wide = float(rng.uniform(box[0], box[2])), float(rng.uniform(70, 150))
        tall = min(float(rng.uniform(24, 80)), (base - box[1]) * 0.75)
        colour = shade(tone, float(rng.uniform(0.85, 1.15)))
        if peaks:
            pen.polygon([(x - wide, base), (x, base - tall), (x + wide, base)], colour)
            cap = [(x - wide * 0.3, base - tall * 0.7), (x, base - tall), (x + wide * 0.3, base - tall * 0.7)]
            pen.polygon([*cap, (x + wide * 0.1, base - tall * 0.6), (x - wide * 0.1, base - tall * 0.62)], (246, 248, 252))
        else:
            pen.ellipse((x - wide, base - tall * 0.6, x + wide, base + tall * 0.6), colour)
