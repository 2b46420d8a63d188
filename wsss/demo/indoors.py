"""Indoors: walls and floors."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from wsss.demo.canvas import hsv, shade
from wsss.demo.textures import Box, gradient, mottle


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
        left, top = float(rng.uniform(box[0], box[2] * 0.8)), box[1] + float(rng.uniform(14, 50))
        right, bottom = left + float(rng.uniform(50, 90)), top + float(rng.uniform(45, 80))
        pen.rectangle((left, top, right, bottom), (112, 78, 52))
        inside = hsv(float(rng.random()), 0.35, 0.85)
        pen.rectangle((left + 6, top + 6, right - 6, bottom - 6), inside)
        middle = top + (bottom - top) * 0.6
        pen.rectangle((left + 6, middle, right - 6, bottom - 6), shade(inside, 0.75))


def floor(canvas: Image.Image, box: Box, rng: np.random.Generator) -> None:
    """Paint an indoor floor: planks, tiles or carpet, sometimes with a rug."""
    wood = hsv(
        float(rng.uniform(0.05, 0.1)), float(rng.uniform(0.35, 0.6)), float(rng.uniform(0.5, 0.8))
    )
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
        rug, x, y = (
            hsv(float(rng.random()), 0.55, 0.65),
            float(rng.uniform(box[0], box[2])),
            box[1] + height * 0.6,
        )
        pen.ellipse((x - 110, y - 28, x + 110, y + 28), rug)
        pen.ellipse((x - 92, y - 22, x + 92, y + 22), outline=shade(rug, 1.4), width=4)
