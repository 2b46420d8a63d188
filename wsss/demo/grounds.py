"""Grounds to stand on outdoors: grass, road, sand and snow."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from wsss.demo.canvas import hsv, jitter, shade
from wsss.demo.textures import Box, gradient, mottle, scatter


def grass(canvas: Image.Image, box: Box, rng: np.random.Generator) -> None:
    """Paint a meadow with blades, flowers and low bushes."""
    green = hsv(
        float(rng.uniform(0.2, 0.34)), float(rng.uniform(0.4, 0.7)), float(rng.uniform(0.45, 0.72))
    )
    gradient(canvas, box, shade(green, 1.15), shade(green, 0.85))
    mottle(canvas, box, rng, shade(green, 0.62), (34, 16), 0.6)
    mottle(canvas, box, rng, shade(green, 1.4), (7, 7), 0.45)
    pen = ImageDraw.Draw(canvas)
    petals = hsv(float(rng.random()), 0.6, 0.95)
    for k, (x, y, near) in enumerate(scatter(box, rng, 110)):
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
    tone = hsv(
        float(rng.uniform(0.09, 0.13)),
        float(rng.uniform(0.25, 0.45)),
        float(rng.uniform(0.8, 0.95)),
    )
    gradient(canvas, box, shade(tone, 1.05), shade(tone, 0.9))
    mottle(canvas, box, rng, shade(tone, 0.72), (60, 9), 0.5)
    mottle(canvas, box, rng, shade(tone, 0.75), (4, 4), 0.3)
    pen = ImageDraw.Draw(canvas)
    for x, y, near in scatter(box, rng, int(rng.integers(8, 26))):
        r = 1.5 + 4 * near
        pebble = jitter(rng, (168, 150, 130), 24.0)
        pen.ellipse((x - r, y - r * 0.7, x + r, y + r * 0.7), pebble)
    if rng.random() < 0.35:
        x, y = float(rng.uniform(box[0], box[2])), (box[1] * 0.3 + box[3] * 0.7)
        arms = [
            (
                x + (13 if k % 2 else 5.5) * math.cos(0.628 * k),
                y + (9 if k % 2 else 4) * math.sin(0.628 * k),
            )
            for k in range(10)
        ]
        pen.polygon(arms, (226, 120, 84))


def snow(canvas: Image.Image, box: Box, rng: np.random.Generator) -> None:
    """Paint a snow field with blue hollows and a few stones."""
    gradient(canvas, box, (244, 248, 252), (222, 230, 240))
    mottle(canvas, box, rng, (176, 196, 222), (70, 20), 0.6)
    mottle(canvas, box, rng, (255, 255, 255), (9, 7), 0.4)
    pen = ImageDraw.Draw(canvas)
    for x, y, near in scatter(box, rng, int(rng.integers(2, 8))):
        r = 3 + 7 * near
        pen.ellipse((x - r, y - r * 0.6, x + r, y + r * 0.6), jitter(rng, (132, 136, 146), 12.0))
        pen.ellipse((x - r, y - r * 0.75, x + r, y + r * 0.1), (248, 250, 253))
