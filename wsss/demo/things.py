"""Drawings of the demo's things: boat, bottle, car, house, tree and umbrella."""

from __future__ import annotations

import math

import numpy as np

from wsss.demo.canvas import Colour, Pen, Point, hsv, jitter, shade

INK: Colour = (36, 34, 38)
WHITE: Colour = (246, 244, 240)
GLASS: Colour = (168, 210, 228)


def _box(left: float, bottom: float, right: float, top: float) -> list[Point]:
    return [(left, bottom), (right, bottom), (right, top), (left, top)]


def _paint(rng: np.random.Generator) -> Colour:
    """Return a lively paint colour, sometimes white or dark."""
    kind = rng.random()
    if kind < 0.15:
        return jitter(rng, (238, 236, 230), 8.0)
    if kind < 0.25:
        return jitter(rng, (70, 72, 84), 8.0)
    return hsv(float(rng.random()), float(rng.uniform(0.55, 0.9)), float(rng.uniform(0.6, 0.95)))


def boat(pen: Pen, rng: np.random.Generator) -> None:
    """Draw a sailing boat, a cabin boat or a fishing boat."""
    paint = _paint(rng)
    kind = int(rng.integers(3))
    mast = (112, 82, 58)
    if kind == 0:
        tall = float(rng.uniform(0.9, 1.05))
        pen.limb([(0.02, 0.22), (0.02, tall)], (0.035, 0.03), mast)
        sail = _paint(rng) if rng.random() < 0.45 else WHITE
        main = pen.curve([(-0.03, 0.3), (-0.03, tall - 0.04), (-0.26, 0.62), (-0.48, 0.31)], sail)
        if rng.random() < 0.5:
            pen.limb([(-0.6, 0.5), (0.0, 0.5)], (0.09, 0.09), _paint(rng), clip=main)
        pen.polygon([(0.07, 0.3), (0.06, tall - 0.12), (0.46, 0.32)], shade(sail, 0.9))
        if rng.random() < 0.6:
            flag = [(0.02, tall + 0.02), (0.02, tall - 0.07), (0.18, tall - 0.02)]
            pen.polygon(flag, (214, 60, 52))
    elif kind == 1:
        pen.limb([(-0.28, 0.4), (-0.28, 0.72)], (0.11, 0.1), _paint(rng))
        cabin = pen.polygon(_box(-0.38, 0.22, 0.2, 0.52), WHITE)
        pen.polygon(_box(-0.42, 0.5, 0.26, 0.57), shade(paint, 0.8))
        for x in (-0.24, -0.06, 0.12):
            pen.ellipse((x, 0.4), (0.055, 0.06), (80, 130, 160), clip=cabin)
    else:
        pen.limb([(0.16, 0.22), (0.16, 0.86)], (0.04, 0.03), mast)
        pen.limb([(0.16, 0.8), (-0.52, 0.34)], (0.02, 0.02), mast)
        pen.polygon(_box(-0.12, 0.22, 0.1, 0.56), _paint(rng))
        pen.polygon(_box(-0.08, 0.4, 0.06, 0.5), GLASS)
        pen.polygon(_box(-0.16, 0.55, 0.14, 0.6), shade(paint, 0.75))
    hull: list[Point] = [(-0.62, 0.3), (-0.3, 0.24), (0.3, 0.24), (0.72, 0.34), (0.48, 0.06)]
    body = pen.polygon([*hull, (0.4, 0.0), (-0.44, 0.0), (-0.52, 0.06)], paint)
    band = WHITE if rng.random() < 0.6 else shade(paint, 0.6)
    pen.polygon([(-0.7, 0.25), (0.0, 0.2), (0.8, 0.29), (0.8, 0.24), (-0.7, 0.19)], band, clip=body)
    pen.polygon(_box(-0.7, -0.02, 0.8, 0.05), shade(paint, 0.55), clip=body)


def bottle(pen: Pen, rng: np.random.Generator) -> None:
    """Draw a bottle: wine, soda or milk shapes, with a cap and mostly a label."""
    glass = hsv(
        (0.36, 0.1, 0.56, 0.3, 0.95)[int(rng.integers(5))] + float(rng.normal(0, 0.02)),
        float(rng.uniform(0.35, 0.8)),
        float(rng.uniform(0.45, 0.85)),
    )
    wide = float(rng.uniform(0.18, 0.24))
    shoulder, neck = float(rng.uniform(0.5, 0.64)), float(rng.uniform(0.055, 0.075))
    half: list[Point] = [
        (wide, 0.0),
        (wide, shoulder - 0.06),
        (wide * 0.86, shoulder + 0.03),
        (neck * 1.25, shoulder + 0.13),
        (neck, shoulder + 0.2),
        (neck, 0.94),
    ]
    outline = half + [(-x, y) for x, y in reversed(half)]
    body = pen.polygon(outline, glass)
    level = float(rng.uniform(0.3, shoulder))
    drink = shade(glass, 0.72)
    pen.polygon(_box(-wide * 0.86, 0.03, wide * 0.86, level), drink, outline=False, clip=body)
    shine = [(-wide * 0.66, 0.08), (-wide * 0.66, shoulder - 0.06), (-neck * 0.6, shoulder + 0.18)]
    pen.limb(shine, (0.045, 0.025), shade(glass, 1.6), outline=False, clip=body)
    if rng.random() < 0.8:
        label = _paint(rng) if rng.random() < 0.5 else (244, 236, 214)
        low = float(rng.uniform(0.1, 0.18))
        pen.polygon(_box(-wide, low, wide, low + 0.24), label, clip=body)
        mark = shade(label, 0.55)
        pen.ellipse((0.0, low + 0.14), (wide * 0.42, 0.06), mark, outline=False, clip=body)
        pen.polygon(_box(-wide * 0.7, low + 0.03, wide * 0.7, low + 0.055), mark, clip=body)
    cap = _paint(rng)
    pen.polygon(_box(-neck * 1.2, 0.91, neck * 1.2, 1.02), cap)


def car(pen: Pen, rng: np.random.Generator) -> None:
    """Draw a car from the side: saloon, hatchback or van."""
    paint = _paint(rng)
    roof = float(rng.uniform(0.66, 0.74))
    kind = int(rng.integers(3))
    if kind == 0:
        top: list[Point] = [(-0.56, 0.42), (-0.34, roof), (0.18, roof), (0.46, 0.42)]
        panes = [(-0.44, 0.43), (-0.29, roof - 0.07), (0.14, roof - 0.07), (0.34, 0.43)]
    elif kind == 1:
        top = [(-0.74, 0.4), (-0.66, roof), (0.1, roof), (0.42, 0.42)]
        panes = [(-0.63, 0.43), (-0.57, roof - 0.07), (0.06, roof - 0.07), (0.3, 0.43)]
    else:
        top = [(-0.78, 0.4), (-0.76, roof + 0.14), (0.42, roof + 0.14), (0.6, 0.42)]
        panes = [(0.02, 0.45), (0.02, roof + 0.06), (0.36, roof + 0.06), (0.5, 0.45)]
    pen.polygon(top, paint)
    pen.polygon(panes, GLASS)
    if kind != 2:
        pen.limb(
            [(-0.1, 0.42), (-0.1, roof - 0.03)], (0.05, 0.05), shade(paint, 0.85), outline=False
        )
    lower: list[Point] = [(-0.8, 0.14), (0.82, 0.14), (0.84, 0.3), (0.76, 0.4), (0.46, 0.45)]
    body = pen.polygon([*lower, (-0.7, 0.45), (-0.8, 0.38)], paint)
    pen.polygon(_box(-0.9, 0.12, 0.9, 0.19), shade(paint, 0.6), outline=False, clip=body)
    pen.limb([(-0.1, 0.2), (-0.1, 0.42)], (0.015, 0.015), shade(paint, 0.6), outline=False)
    pen.limb([(-0.04, 0.36), (0.06, 0.36)], (0.025, 0.025), shade(paint, 0.5), outline=False)
    pen.ellipse((0.77, 0.32), (0.055, 0.05), (252, 236, 160))
    pen.ellipse((-0.77, 0.34), (0.035, 0.05), (206, 44, 40))
    for x in (-0.46, 0.48):
        pen.ellipse((x, 0.16), (0.17, 0.16), INK)
        pen.ellipse((x, 0.16), (0.085, 0.08), (190, 192, 198), outline=False)
        pen.ellipse((x, 0.16), (0.03, 0.03), INK, outline=False)


def house(pen: Pen, rng: np.random.Generator) -> None:
    """Draw a house with gable, door, windows and mostly a chimney."""
    wall = hsv(
        float(rng.uniform(0.02, 0.16)),
        float(rng.uniform(0.05, 0.5)),
        float(rng.uniform(0.75, 0.96)),
    )
    if rng.random() < 0.25:
        wall = _paint(rng)
    roof = hsv(
        float(rng.choice([0.02, 0.04, 0.6, 0.08])),
        float(rng.uniform(0.4, 0.75)),
        float(rng.uniform(0.35, 0.7)),
    )
    wide, eave = float(rng.uniform(0.36, 0.56)), float(rng.uniform(0.46, 0.6))
    if rng.random() < 0.8:
        x = float(rng.choice([-1.0, 1.0])) * wide * 0.55
        pen.polygon(_box(x - 0.06, eave, x + 0.06, 0.98), (156, 84, 66))
        pen.polygon(_box(x - 0.08, 0.95, x + 0.08, 1.0), (120, 64, 52))
    front = pen.polygon(_box(-wide, 0.0, wide, eave), wall)
    if rng.random() < 0.6:
        for row in range(1, 8):
            line = _box(-wide, eave * row / 8, wide, eave * row / 8 + 0.012)
            pen.polygon(line, shade(wall, 0.84), outline=False, clip=front)
    if rng.random() < 0.5:
        gable = [(-wide - 0.1, eave - 0.03), (wide + 0.1, eave - 0.03), (0.0, 1.0)]
    else:
        flat = wide * 0.6
        gable = [(-wide - 0.1, eave - 0.03), (wide + 0.1, eave - 0.03), (flat, 0.92), (-flat, 0.92)]
    top = pen.polygon(gable, roof)
    for row in range(1, 5):
        y = eave + (0.95 - eave) * row / 5
        pen.polygon(_box(-0.8, y, 0.8, y + 0.014), shade(roof, 0.76), outline=False, clip=top)
    door, frame = _paint(rng), WHITE
    shift = float(rng.choice([-0.5, 0.0, 0.5])) * wide
    pen.polygon(_box(shift - 0.09, 0.0, shift + 0.09, 0.3), door)
    pen.ellipse((shift + 0.055, 0.14), (0.016, 0.016), (250, 220, 120), outline=False)
    for x in (-0.6 * wide, 0.6 * wide, 0.0):
        if abs(x - shift) < 0.17:
            continue
        pane = (255, 226, 140) if rng.random() < 0.3 else GLASS
        pen.polygon(_box(x - 0.085, 0.17, x + 0.085, 0.36), frame)
        pen.polygon(_box(x - 0.062, 0.195, x + 0.062, 0.335), pane, outline=False)
        pen.polygon(_box(x - 0.01, 0.19, x + 0.01, 0.34), frame, outline=False)
        pen.polygon(_box(x - 0.07, 0.255, x + 0.07, 0.273), frame, outline=False)
    if rng.random() < 0.5:
        pen.ellipse((0.0, eave + 0.14), (0.07, 0.07), GLASS)


def tree(pen: Pen, rng: np.random.Generator) -> None:
    """Draw a round tree (green, autumn, with fruit), a fir or a palm."""
    bark = jitter(rng, (112, 78, 52), 10.0)
    leaf = hsv(
        float(rng.uniform(0.24, 0.38)),
        float(rng.uniform(0.45, 0.8)),
        float(rng.uniform(0.35, 0.68)),
    )
    kind = rng.random()
    if kind < 0.55:
        if rng.random() < 0.22:
            leaf = hsv(float(rng.uniform(0.02, 0.12)), 0.75, float(rng.uniform(0.65, 0.85)))
        pen.polygon([(-0.1, 0), (0.1, 0), (0.055, 0.5), (-0.055, 0.5)], bark)
        pen.limb([(0.0, 0.3), (0.16, 0.48)], (0.05, 0.03), bark)
        blobs = [(-0.22, 0.56, 0.19), (0.22, 0.56, 0.19), (-0.13, 0.76, 0.2), (0.15, 0.76, 0.19)]
        for x, y, r in [*blobs, (0.0, 0.64, 0.24)]:
            r *= float(rng.uniform(0.9, 1.1))
            pen.ellipse((x, y), (r, r * 0.95), shade(leaf, float(rng.uniform(0.86, 1.06))))
        for _ in range(9):
            spot = (float(rng.uniform(-0.3, 0.26)), float(rng.uniform(0.5, 0.88)))
            pen.ellipse(
                spot, (0.05, 0.035), shade(leaf, 1.28), outline=False, clip=len(pen.parts) - 1
            )
        if rng.random() < 0.4:
            fruit = hsv(float(rng.choice([0.0, 0.08])), 0.85, 0.85)
            for _ in range(6):
                spot = (float(rng.uniform(-0.26, 0.26)), float(rng.uniform(0.48, 0.8)))
                pen.ellipse(spot, (0.035, 0.035), fruit)
    elif kind < 0.85:
        leaf = shade(leaf, 0.8)
        pen.polygon(_box(-0.06, 0.0, 0.06, 0.22), bark)
        for low, high, wide in ((0.14, 0.56, 0.38), (0.36, 0.78, 0.3), (0.58, 1.0, 0.21)):
            tier = [
                (-wide, low),
                (-wide * 0.5, low + 0.035),
                (0.0, low - 0.02),
                (wide * 0.5, low + 0.035),
            ]
            pen.polygon([*tier, (wide, low), (0.0, high)], shade(leaf, 0.85 + 0.3 * low))
    else:
        lean = float(rng.uniform(-0.12, 0.12))
        pen.limb([(0.0, 0.0), (lean * 0.3, 0.4), (lean, 0.76)], (0.11, 0.07), bark)
        for angle in (-0.5, 0.1, 0.9, math.pi - 0.9, math.pi - 0.1, math.pi + 0.5):
            dx, dy = math.cos(angle), math.sin(angle)
            mid = (lean + 0.24 * dx, 0.8 + 0.2 * dy + 0.08)
            end = (lean + 0.46 * dx, 0.76 + 0.26 * dy - 0.08)
            pen.limb([(lean, 0.77), mid, end], (0.12, 0.03), leaf)
        pen.ellipse((lean + 0.04, 0.73), (0.05, 0.05), (120, 78, 44))


def umbrella(pen: Pen, rng: np.random.Generator) -> None:
    """Draw an open umbrella with scalloped panels and a hooked or plain pole."""
    first, second = _paint(rng), WHITE if rng.random() < 0.5 else _paint(rng)
    wood = (120, 84, 58) if rng.random() < 0.6 else (70, 70, 78)
    if rng.random() < 0.6:
        hook: list[Point] = [(0.0, 0.6), (0.0, 0.1), (0.06, 0.02), (0.13, 0.05), (0.13, 0.13)]
        pen.limb(hook, (0.04, 0.045), wood)
    else:
        pen.limb([(0.0, 0.6), (0.0, 0.0)], (0.045, 0.04), wood)
    rim, panels = float(rng.uniform(0.5, 0.56)), int(rng.choice([4, 5, 6]))
    edges = [-math.cos(math.pi * k / panels) * 0.6 for k in range(panels + 1)]
    for k in range(panels):
        left, right = edges[k], edges[k + 1]
        scallop: list[Point] = []
        for step in range(7):
            t = step / 6
            scallop.append((right + (left - right) * t, rim + 0.055 * math.sin(math.pi * t)))
        rise = []
        for x, back in ((left, False), (right, True)):
            side = [
                (x * math.cos(a), rim + (0.96 - rim) * math.sin(a))
                for a in np.linspace(0, math.pi / 2, 8)
            ]
            rise += side[::-1] if back else side
        pen.polygon([*rise, *scallop], first if k % 2 == 0 else second)
    pen.limb([(0.0, 0.95), (0.0, 1.02)], (0.03, 0.025), wood)
