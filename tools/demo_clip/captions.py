"""Captions for the pretraining, made from tags and the words of the place; never from masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

TEMPLATES: Final[tuple[str, ...]] = (
    "a clean origami {}.",
    "a clean origami {}.",
    "a photo of a {}.",
    "a photo of the {}.",
    "a drawing of a {}.",
    "a picture with a {}.",
    "there is a {} in the scene.",
    "{}",
)
"""Sentences about one thing; the first is the prompt of the CAM stage and stands twice."""

ATTRIBUTES: Final[dict[str, tuple[str, ...]]] = {
    "bird": ("a pointed beak", "feathered wings", "a small round head", "thin legs"),
    "boat": ("a curved hull", "a mast with sails", "a cabin on a deck", "a waterline stripe"),
    "bottle": ("a narrow neck", "a coloured cap", "a paper label", "a shiny glass body"),
    "car": ("round black wheels", "glass windows", "bright headlights", "a metal body"),
    "cat": ("pointed ears", "round eyes", "thin whiskers", "a long curved tail"),
    "fish": ("a forked tail fin", "a dorsal fin", "striped scales", "a round eye"),
    "horse": ("a flowing mane", "four long legs", "a long neck", "dark hooves"),
    "house": ("a pitched roof", "a front door", "square windows", "a chimney"),
    "tree": ("a leafy crown", "a brown trunk", "green branches", "ripe fruit"),
    "umbrella": ("a wide canopy", "coloured panels", "a thin pole", "a hooked handle"),
}
"""What is visible of each class when drawn; used in captions."""

_LISTS: Final = (
    "a photo of {}{}.",
    "a clean origami {}{}.",
    "a drawing of {}{}.",
    "{}{}",
)
_PLACE: Final = {
    "water": "on water",
    "grass": "on the grass",
    "road": "on a road",
    "sand": "on the sand",
    "snow": "in the snow",
    "sky": "in the sky",
    "floor": "on the floor",
}


def _one(rng: np.random.Generator, words: Sequence[str]) -> str:
    return words[int(rng.integers(len(words)))]


def caption(rng: np.random.Generator, tags: Sequence[str], surroundings: Sequence[str]) -> str:
    """Return one true sentence about a scene.

    Args:
        rng: chooses what is said and how.
        tags: classes in the scene, at least one.
        surroundings: words of its place, the main one first.
    """
    kind = rng.random()
    if kind < 0.4:
        return _one(rng, TEMPLATES).format(_one(rng, tags))
    if kind < 0.55:
        return _one(rng, TEMPLATES).format(_one(rng, surroundings))
    if kind < 0.67:
        name = _one(rng, tags)
        detail = _one(rng, ATTRIBUTES[name])
        return _one(
            rng, (f"a {name} with {detail}.", f"{detail} of a {name}.", f"{name}: {detail}")
        )
    names = [f"a {name}" for name in tags]
    rng.shuffle(names)
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    where = f" {_PLACE[surroundings[0]]}" if rng.random() < 0.6 else ""
    return _one(rng, _LISTS).format(listed, where)
