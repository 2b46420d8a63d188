"""Numbers of things in messages."""

from __future__ import annotations


def counted(number: int, thing: str) -> str:
    """``1 photo``, ``2 photos``.

    Args:
        number: of them.
        thing: one of them; its plural ends in s.
    """
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
