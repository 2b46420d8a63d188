"""Numbers and lists of things in messages."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int, thing: str) -> str:
    """``1 photo``, ``2 photos``.

    Args:
        thing: one of them; its plural ends in s.
    """
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def first_names(names: Sequence[str], most: int = 8, separator: str = ", ") -> str:
    """``a, b … and 1 more``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return separator.join(names[:most]) + more


def list_images(images: Sequence[str]) -> str:
    """``9 images ('a', 'b' … and 1 more)``."""
    return f"{len(images)} images ({first_names(list(map(repr, images)))})"
