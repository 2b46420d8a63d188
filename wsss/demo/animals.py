"""Drawings of the demo's animals: bird, cat, fish and horse.

Heads carry the telling parts (ears, beak, mane, eyes) and bodies are plain on purpose: a model that
learns from tags looks at the head, and its activation maps stop short of the body.
"""

from __future__ import annotations

import numpy as np

from wsss.demo.canvas import Colour, Pen, Point, hsv, jitter, shade

INK: Colour = (32, 28, 30)
WHITE: Colour = (246, 244, 238)
FUR: tuple[Colour, ...] = (
    (232, 148, 62),
    (128, 128, 134),
    (70, 64, 68),
    (236, 228, 214),
    (150, 104, 68),
    (222, 190, 146),
)
HIDE: tuple[Colour, ...] = (
    (134, 80, 46),
    (92, 58, 40),
    (62, 52, 50),
    (226, 220, 210),
    (196, 146, 90),
    (160, 156, 158),
)


def _pick(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    return jitter(rng, colours[int(rng.integers(len(colours)))])


def _eye(pen: Pen, centre: Point, radius: float, iris: Colour = WHITE) -> None:
    pen.ellipse(centre, (radius, radius), iris, outline=False)
    pupil = (centre[0] + radius * 0.2, centre[1])
    pen.ellipse(pupil, (radius * 0.55, radius * 0.72), INK, outline=False)
    glint = (centre[0] + radius * 0.05, centre[1] + radius * 0.35)
    pen.ellipse(glint, (radius * 0.26, radius * 0.26), (255, 255, 255), outline=False)


def _cat_head(pen: Pen, at: Point, r: float, fur: Colour, rng: np.random.Generator) -> None:
    x, y = at
    inner = (226, 150, 150)
    for side in (-1.0, 1.0):
        tip = (x + side * r * 0.86, y + r * 1.5)
        ear = [(x + side * r * 0.96, y + r * 0.2), tip, (x + side * r * 0.12, y + r * 0.8)]
        pen.polygon(ear, fur)
        small = [(x + side * r * 0.84, y + r * 0.5), (tip[0] - side * r * 0.05, tip[1] - r * 0.25)]
        pen.polygon([*small, (x + side * r * 0.36, y + r * 0.8)], inner, outline=False)
    head = pen.ellipse(at, (r * 1.06, r * 0.92), fur)
    if rng.random() < 0.6:
        for dx in (-0.3, 0.0, 0.3):
            stripe = [(x + dx * r, y + r), (x + dx * r * 0.8, y + r * 0.5)]
            pen.limb(stripe, (r * 0.14, r * 0.06), shade(fur, 0.6), outline=False, clip=head)
    pen.ellipse((x, y - r * 0.42), (r * 0.5, r * 0.36), WHITE, outline=False)
    iris = hsv(float(rng.uniform(0.13, 0.36)), 0.75, 0.9)
    for side in (-1.0, 1.0):
        _eye(pen, (x + side * r * 0.42, y + r * 0.1), r * 0.24, iris)
        for lift in (-0.14, 0.06):
            start = (x + side * r * 0.4, y - r * 0.4)
            end = (x + side * r * 1.32, y - r * (0.42 - lift))
            pen.limb([start, end], (r * 0.045, r * 0.03), (238, 234, 228), outline=False)
    nose = [(x - r * 0.13, y - r * 0.2), (x + r * 0.13, y - r * 0.2), (x, y - r * 0.36)]
    pen.polygon(nose, (222, 108, 116), outline=False)
    for side in (-1.0, 1.0):
        mouth = [(x, y - r * 0.36), (x + side * r * 0.12, y - r * 0.52)]
        pen.limb([*mouth, (x + side * r * 0.26, y - r * 0.46)], (r * 0.06, r * 0.05), INK)


def cat(pen: Pen, rng: np.random.Generator) -> None:
    """Draw a cat that sits, walks or lies; its face always turns to the viewer."""
    fur = _pick(rng, FUR)
    dark = shade(fur, 0.8)
    paw = WHITE if rng.random() < 0.4 else fur
    pose = int(rng.integers(3))
    bend = float(rng.uniform(-0.08, 0.08))
    if pose == 0:
        tail: list[Point] = [(-0.2, 0.06), (-0.48, 0.08), (-0.56, 0.3 + bend), (-0.44, 0.46 + bend)]
        pen.limb(tail, (0.1, 0.07), dark)
        body: list[Point] = [(-0.3, 0.0), (0.24, 0.0), (0.27, 0.3), (0.17, 0.56), (-0.06, 0.58)]
        pen.curve([*body, (-0.26, 0.38), (-0.35, 0.16)], fur)
        pen.ellipse((-0.18, 0.13), (0.17, 0.14), shade(fur, 0.95))
        for x in (0.06, 0.18):
            pen.limb([(x, 0.36), (x + 0.01, 0.04)], (0.1, 0.09), fur)
            pen.ellipse((x + 0.03, 0.03), (0.075, 0.042), paw)
        _cat_head(pen, (0.08, 0.7 + bend * 0.4), 0.2, fur, rng)
    elif pose == 1:
        tail = [(-0.44, 0.42), (-0.62, 0.5), (-0.66, 0.72 + bend), (-0.56, 0.86 + bend)]
        pen.limb(tail, (0.08, 0.06), dark)
        for x, colour in ((-0.3, dark), (0.3, dark), (-0.38, fur), (0.2, fur)):
            step = float(rng.uniform(-0.07, 0.07))
            pen.limb([(x, 0.36), (x + step, 0.04)], (0.12, 0.085), colour)
            pen.ellipse((x + step + 0.025, 0.035), (0.07, 0.042), paw)
        pen.curve(
            [(-0.46, 0.28), (0.0, 0.24), (0.4, 0.3), (0.42, 0.52), (0, 0.5), (-0.46, 0.52)], fur
        )
        _cat_head(pen, (0.46, 0.62 + bend), 0.19, fur, rng)
    else:
        pen.curve([(-0.56, 0.04), (0.5, 0.02), (0.58, 0.3), (0.1, 0.44), (-0.46, 0.42)], fur)
        pen.limb([(-0.5, 0.1), (-0.2, 0.05), (0.16, 0.07 + abs(bend))], (0.09, 0.07), dark)
        pen.ellipse((0.36, 0.05), (0.12, 0.05), paw)
        _cat_head(pen, (0.42, 0.44 + bend), 0.22, fur, rng)


def horse(pen: Pen, rng: np.random.Generator) -> None:
    """Draw a horse from the side, its head raised or down to graze, sometimes saddled."""
    hide = _pick(rng, HIDE)
    hair = shade(hide, 0.5) if rng.random() < 0.7 else (238, 226, 200)
    back, hoof = shade(hide, 0.78), (48, 42, 42)
    sway = float(rng.uniform(-0.06, 0.06))
    pen.limb([(-0.38, 0.64), (-0.52, 0.54), (-0.54 + sway, 0.24)], (0.09, 0.05), hair)
    gait = float(rng.uniform(0.0, 0.14))
    for x, swing, colour in (
        (-0.26, gait, back),
        (0.24, -gait, back),
        (-0.34, -gait, hide),
        (0.3, gait, hide),
    ):
        foot = x + swing
        knee = (x + swing * 0.7 + 0.02, 0.26)
        pen.limb([(x, 0.52), knee, (foot, 0.04)], (0.13, 0.055), colour)
        pen.polygon(
            [(foot - 0.04, 0.07), (foot + 0.04, 0.07), (foot + 0.06, 0), (foot - 0.05, 0)], hoof
        )
    grazing = rng.random() < 0.3
    neck: list[Point]
    if grazing:
        neck, mane = (
            [(0.28, 0.62), (0.46, 0.46), (0.58, 0.24)],
            [(0.3, 0.72), (0.56, 0.46), (0.66, 0.28)],
        )
        head: list[Point] = [(0.58, 0.25), (0.66, 0.06)]
    else:
        neck, mane = (
            [(0.26, 0.62), (0.4, 0.8), (0.48, 0.94)],
            [(0.2, 0.72), (0.3, 0.86), (0.44, 1.02)],
        )
        head = [(0.48, 0.94), (0.72, 0.78)]
    pen.limb(neck, (0.28, 0.14), hide)
    barrel: list[Point] = [
        (-0.4, 0.5),
        (-0.1, 0.42),
        (0.3, 0.46),
        (0.4, 0.6),
        (0.24, 0.73),
        (-0.06, 0.68),
    ]
    body = pen.curve([*barrel, (-0.34, 0.74), (-0.44, 0.64)], hide)
    if rng.random() < 0.3:
        for _ in range(5):
            spot = (float(rng.uniform(-0.4, 0.3)), float(rng.uniform(0.46, 0.72)))
            pen.ellipse(spot, (0.07, 0.05), WHITE, outline=False, clip=body)
    pen.limb(mane, (0.1, 0.1), hair)
    ear = (head[0][0] - 0.02, head[0][1] + 0.04)
    pen.polygon(
        [(ear[0] - 0.04, ear[1]), (ear[0] - 0.01, ear[1] + 0.12), (ear[0] + 0.05, ear[1])], hide
    )
    pen.limb(head, (0.16, 0.1), hide)
    muzzle = head[1]
    pen.ellipse(muzzle, (0.055, 0.05), shade(hide, 0.7), outline=False)
    middle = (head[0][0] * 0.72 + muzzle[0] * 0.28, head[0][1] * 0.72 + muzzle[1] * 0.28 + 0.02)
    _eye(pen, middle, 0.03)
    if rng.random() < 0.35:
        blanket = hsv(float(rng.random()), 0.7, 0.8)
        pen.curve([(-0.14, 0.54), (0.14, 0.54), (0.12, 0.74), (-0.12, 0.73)], blanket)
        pen.curve([(-0.1, 0.7), (0.08, 0.7), (0.12, 0.78), (-0.12, 0.79)], (92, 56, 36))


def bird(pen: Pen, rng: np.random.Generator) -> None:
    """Draw a bird with folded wings; a wing may be lifted, and then the bird is in the air."""
    hue = (0.0, 0.58, 0.14, 0.08, 0.36, 0.55)[int(rng.integers(6))]
    coat = hsv(
        hue + float(rng.normal(0, 0.02)),
        float(rng.uniform(0.25, 0.85)),
        float(rng.uniform(0.4, 0.95)),
    )
    belly = jitter(rng, (244, 226, 196)) if rng.random() < 0.7 else shade(coat, 1.2)
    wing, beak = shade(coat, 0.72), hsv(float(rng.uniform(0.07, 0.13)), 0.9, 0.95)
    flying = rng.random() < 0.45
    if flying:
        up = float(rng.uniform(0.8, 1.02))
        pen.curve(
            [(0.1, 0.42), (-0.14, up * 0.9), (-0.05, up * 1.04), (0.34, 0.46)], shade(wing, 0.85)
        )
    else:
        for x in (-0.02, 0.1):
            pen.limb([(x, 0.2), (x + 0.01, 0.02)], (0.035, 0.03), beak)
            pen.limb([(x - 0.03, 0.015), (x + 0.08, 0.015)], (0.03, 0.025), beak)
    pen.polygon([(-0.28, 0.42), (-0.72, 0.36), (-0.7, 0.24), (-0.62, 0.2), (-0.24, 0.26)], wing)
    outline: list[Point] = [(-0.42, 0.36), (-0.2, 0.18), (0.12, 0.14), (0.36, 0.34), (0.36, 0.56)]
    body = pen.curve([*outline, (0.1, 0.58)], coat)
    pen.ellipse((0.16, 0.22), (0.26, 0.2), belly, outline=False, clip=body)
    pen.ellipse((0.3, 0.66), (0.2, 0.19), coat)
    if rng.random() < 0.35:
        pen.curve([(0.18, 0.8), (0.04, 1.0), (0.28, 0.92), (0.36, 0.82)], wing)
    pen.polygon([(0.44, 0.74), (0.7, 0.63), (0.45, 0.57)], beak)
    pen.ellipse((0.38, 0.69), (0.075, 0.075), WHITE, outline=False)
    pen.ellipse((0.395, 0.69), (0.045, 0.05), INK, outline=False)
    if flying:
        pen.curve([(-0.16, 0.44), (-0.5, 0.86), (-0.36, 0.98), (-0.06, 0.82), (0.2, 0.42)], wing)
    else:
        feather = pen.curve(
            [(0.16, 0.5), (-0.16, 0.5), (-0.52, 0.28), (-0.16, 0.26), (0.1, 0.32)], wing
        )
        for x in (-0.3, -0.16, -0.02):
            pen.limb([(x, 0.44), (x - 0.1, 0.28)], (0.03, 0.02), shade(wing, 0.7), clip=feather)


def fish(pen: Pen, rng: np.random.Generator) -> None:
    """Draw a fish from the side, plain or striped, slim or deep."""
    hue = (0.06, 0.12, 0.0, 0.6, 0.88, 0.4)[int(rng.integers(6))]
    skin = hsv(
        hue + float(rng.normal(0, 0.02)),
        float(rng.uniform(0.5, 0.95)),
        float(rng.uniform(0.7, 1.0)),
    )
    fin, deep = shade(skin, 0.75), float(rng.uniform(0.75, 1.15))
    mid = 0.5

    def y(offset: float) -> float:
        return mid + offset * deep

    pen.curve(
        [(-0.44, y(0.02)), (-0.86, y(0.34)), (-0.72, y(0.0)), (-0.86, y(-0.34)), (-0.44, y(-0.02))],
        fin,
    )
    pen.curve([(-0.3, y(0.24)), (-0.2, y(0.5)), (0.1, y(0.46)), (0.26, y(0.26))], fin)
    pen.curve([(-0.16, y(-0.24)), (-0.16, y(-0.44)), (0.04, y(-0.42)), (0.12, y(-0.26))], fin)
    side: list[Point] = [(-0.56, y(0.0)), (-0.2, y(0.3)), (0.28, y(0.32)), (0.66, y(0.02))]
    body = pen.curve([*side, (0.28, y(-0.3)), (-0.2, y(-0.28))], skin)
    pen.ellipse((0.05, y(-0.3)), (0.5, 0.16 * deep), shade(skin, 1.3), outline=False, clip=body)
    style = int(rng.integers(3))
    if style == 0:
        for x in (-0.32, -0.04, 0.24):
            pen.limb([(x, y(0.4)), (x + 0.04, y(-0.4))], (0.1, 0.1), WHITE, clip=body)
    elif style == 1:
        for row in range(3):
            for column in range(4):
                scale = (-0.34 + column * 0.17 + 0.05 * row, y(-0.14 + 0.14 * row))
                pen.ellipse(scale, (0.045, 0.045), fin, outline=False, clip=body)
    pen.limb([(0.3, y(0.22)), (0.24, y(0.0)), (0.3, y(-0.22))], (0.035, 0.035), fin, clip=body)
    pen.curve([(0.14, y(0.02)), (-0.1, y(-0.08)), (-0.06, y(-0.2)), (0.12, y(-0.1))], fin)
    _eye(pen, (0.45, y(0.1)), 0.085)
    pen.limb([(0.6, y(-0.06)), (0.5, y(-0.1))], (0.035, 0.03), INK, outline=False)
