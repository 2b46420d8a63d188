"""The names of the demo: its classes, the words for its places, and what each class looks like."""

from typing import Final

from wsss.data.datasets.words import DEMO_BACKGROUNDS
from wsss.data.datasets.words import DEMO_NAMES as DEMO_CLASSES

__all__ = ["DEMO_ATTRIBUTES", "DEMO_BACKGROUNDS", "DEMO_CLASSES"]

DEMO_ATTRIBUTES: Final[dict[str, tuple[str, ...]]] = {
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
"""What is visible of each class when drawn; used in captions and as attribute descriptions."""
