"""Composes one scene: a habitat, one to three classes in it, and the exact mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from wsss.data.datasets.words import DEMO_NAMES
from wsss.demo import animals, things
from wsss.demo.backgrounds import HABITATS, Background, paint
from wsss.demo.canvas import SUPERSAMPLE, Layer, Pen, Placement, draw
from wsss.demo.occlusion import to_mask, visible

SPLITS: Final[Mapping[str, int]] = {"train": 0, "val": 1, "pretrain": 2}
"""Streams of scenes; each has its own random generator, so that no image occurs in two."""

MIN_HEIGHT: Final = 17
"""Height in image pixels below which no object is drawn."""

_SIZES: Final = (96, 104, 112, 120, 128, 136, 144)
_DRAWERS: Final[Mapping[str, Callable[[Pen, np.random.Generator], None]]] = {
    **{name: getattr(animals, name) for name in ("bird", "cat", "fish", "horse")},
    **{
        name: getattr(things, name)
        for name in ("boat", "bottle", "car", "house", "tree", "umbrella")
    },
}
# Height as a share of the image's shorter side (before depth), and width over height.
_HEIGHT: Final[Mapping[str, float]] = {
    "bird": 0.48, "boat": 0.54, "bottle": 0.68, "car": 0.46, "cat": 0.62,
    "fish": 0.44, "horse": 0.68, "house": 0.64, "tree": 0.74, "umbrella": 0.66,
}  # fmt: skip
_HALF_WIDTH: Final[Mapping[str, float]] = {
    "bird": 0.7, "boat": 0.68, "bottle": 0.25, "car": 0.84, "cat": 0.6,
    "fish": 0.75, "horse": 0.62, "house": 0.6, "tree": 0.42, "umbrella": 0.58,
}  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """One labelled picture.

    Attributes:
        image: ``(height, width, 3)`` uint8 RGB.
        mask: ``(height, width)`` uint8; 0 background, class index + 1, 255 around edges.
        tags: names of the classes with visible pixels, in class order.
        background: main word of the habitat, e.g. ``"water"``.
        surroundings: all words of the habitat, ``background`` first.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    tags: tuple[str, ...]
    background: str
    surroundings: tuple[str, ...]


def render_scene(seed: int, split: str, index: int) -> Scene:
    """Render scene ``index`` of a stream; the same arguments always give the same scene.

    Args:
        seed: any non-negative integer.
        split: ``"train"``, ``"val"`` or ``"pretrain"``.
        index: position in the stream, from 0; a scene does not depend on how many there are.

    Raises:
        ValueError: ``split`` is unknown, or ``seed`` or ``index`` is negative.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; expected one of {', '.join(SPLITS)}")
    if seed < 0 or index < 0:
        raise ValueError(f"seed and index must not be negative; got {seed} and {index}")
    rng = np.random.default_rng(np.random.SeedSequence([seed, SPLITS[split], index]))
    width, height = _size(rng)
    canvas_size = (width * SUPERSAMPLE, height * SUPERSAMPLE)
    habitat, names = _cast(rng)
    ground = paint(habitat, rng, canvas_size)
    light = float(rng.uniform(-1.0, 1.0))
    layers: list[tuple[str, Placement, Layer]] = []
    for name, placement in _arrange(rng, habitat, ground, names, canvas_size):
        pen = Pen()
        _DRAWERS[name](pen, rng)
        layers.append((name, placement, draw(pen, placement, rng, light)))
    layer_map, shown = visible([layer for _, _, layer in layers], canvas_size)
    canvas = ground.canvas
    for k in shown:
        name, placement, layer = layers[k]
        _ground_contact(canvas, habitat, name, placement, layer)
        canvas.paste(layer.rgb, layer.corner, layer.alpha)
    shown_names = [layers[k][0] for k in shown]
    labels = [DEMO_NAMES.index(name) + 1 for name, _, _ in layers]
    mask = to_mask(layer_map, labels)
    tags = tuple(name for name in DEMO_NAMES if name in shown_names)
    return Scene(_finish(canvas, rng), mask, tags, ground.words[0], ground.words)


def _size(rng: np.random.Generator) -> tuple[int, int]:
    long, short = float(rng.choice(_SIZES[3:])), float(rng.choice(_SIZES[:4]))
    return (int(long), int(short)) if rng.random() < 0.68 else (int(short), int(long))


def _cast(rng: np.random.Generator) -> tuple[str, list[str]]:
    """Choose the habitat and the classes: one instance of each, sometimes two."""
    lead = DEMO_NAMES[int(rng.integers(len(DEMO_NAMES)))]
    habitats = HABITATS[lead]
    habitat = str(rng.choice(list(habitats), p=list(habitats.values())))
    others = [name for name in DEMO_NAMES if name != lead and HABITATS[name].get(habitat, 0) > 0]
    count = min(int(rng.choice([0, 1, 2], p=[0.44, 0.38, 0.18])), len(others))
    weights = np.array([HABITATS[name][habitat] ** 0.5 for name in others])
    cast = [lead]
    if count:
        cast += [
            str(n) for n in rng.choice(others, count, replace=False, p=weights / weights.sum())
        ]
    if len(cast) < 3 and rng.random() < 0.25:
        cast.append(str(rng.choice(cast)))
    return habitat, cast


def _arrange(
    rng: np.random.Generator,
    habitat: str,
    ground: Background,
    names: list[str],
    size: tuple[int, int],
) -> list[tuple[str, Placement]]:
    """Arrange the objects, far ones first; avoids crowding, but some occlusion remains."""
    width, height = size
    crowd = (1.0, 0.86, 0.74)[min(len(names), 3) - 1]
    small = rng.random() < 0.12
    positions: list[tuple[float, float]] = []
    arranged: list[tuple[str, Placement]] = []
    for name in names:
        depth = float(rng.random())
        tall = _HEIGHT[name] * min(size) * crowd * (0.72 + 0.55 * depth)
        tall *= float(rng.uniform(0.85, 1.25)) * (0.55 if small else 1.0)
        tall = max(tall, float(MIN_HEIGHT * SUPERSAMPLE))
        floats = (habitat == "reef") or (habitat == "air" and name == "bird")
        if floats:
            y = float(rng.uniform(min(tall + 0.06 * height, 0.9 * height), 0.95 * height))
        else:
            y = ground.horizon + (0.16 + 0.8 * depth) * (height - ground.horizon)
            y = min(max(y, tall * 0.9), height * 0.985)
        half = _HALF_WIDTH[name] * tall
        best_x, best_gap = width / 2.0, -1e9
        for _ in range(5):
            x = float(rng.uniform(min(0.75 * half, width / 2), max(width - 0.75 * half, width / 2)))
            gap = min((abs(x - other) - half - wide for other, wide in positions), default=0.0)
            if gap > best_gap:
                best_x, best_gap = x, gap
        positions.append((best_x, half))
        spread = 0.2 if floats or name in ("umbrella", "bottle") else 0.04
        turn = float(np.clip(rng.normal(0.0, spread), -0.5, 0.5))
        arranged.append((name, Placement(best_x, y, tall, bool(rng.random() < 0.5), turn)))
    return sorted(arranged, key=lambda item: item[1].y)


def _ground_contact(
    canvas: Image.Image, habitat: str, name: str, at: Placement, layer: Layer
) -> None:
    """Darken the ground under an object, or draw the wash around a boat."""
    if habitat == "reef" or (habitat == "air" and name == "bird"):
        return
    half = at.height * _HALF_WIDTH[name]
    shadow = Image.new("L", canvas.size)
    flat = at.height * 0.05
    box = (at.x - half * 0.8, at.y - flat, at.x + half * 0.8, at.y + flat)
    ImageDraw.Draw(shadow).ellipse(box, fill=110)
    tone = (18, 22, 26)
    if habitat == "lake":
        mirrored = layer.alpha.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        squashed = mirrored.resize((mirrored.width, max(1, mirrored.height // 3)))
        shadow.paste(squashed.point([v // 4 for v in range(256)]), (layer.corner[0], int(at.y)))
        tone = (12, 40, 64)
    canvas.paste(tone, mask=shadow.filter(ImageFilter.BoxBlur(3)))
    if habitat == "lake":
        pen = ImageDraw.Draw(canvas)
        for k in (0.0, 1.0):
            wash = (
                at.x - half * (1 + 0.2 * k),
                at.y - 3 + 5 * k,
                at.x + half * (1 + 0.2 * k),
                at.y + 7 + 7 * k,
            )
            pen.arc(wash, 10, 170, (232, 244, 248), 2)


def _finish(canvas: Image.Image, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Bring the canvas to image size; add tone, exposure and grain as a camera does."""
    image = np.asarray(canvas.reduce(SUPERSAMPLE), np.float32)
    tint = rng.normal(1.0, 0.035, 3) * float(rng.uniform(0.86, 1.1))
    contrast = float(rng.uniform(0.9, 1.1))
    grain = rng.normal(0.0, float(rng.uniform(1.0, 4.0)), image.shape)
    exposed = (image - 128.0) * contrast + 128.0
    return np.clip(np.rint(exposed * tint + grain), 0, 255).astype(np.uint8)
