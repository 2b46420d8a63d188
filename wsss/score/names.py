"""Lists of names in messages."""

from __future__ import annotations

from collections.abc import Sequence

_MOST = 8


def first_names(names: Sequence[str], separator: str = ", ") -> str:
    """``a, b … and 1 more``."""
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return separator.join(names[:_MOST]) + more


def list_images(images: Sequence[str]) -> str:
    """``9 images ('a', 'b' … and 1 more)``."""
    return f"{len(images)} images ({first_names(list(map(repr, images)))})"
