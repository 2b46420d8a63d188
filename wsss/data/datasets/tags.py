"""Tags as people write them → class indices."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from wsss.data.datasets.classes import ClassList, nearest, spelling, spellings

_SEPARATORS = re.compile(r"[;,|\n]")
_SHOWN, _LONGEST = 5, 60  # unknown tags in a message, and letters of one


@dataclass(frozen=True)
class Tags:
    """The tags of one image."""

    indices: tuple[int, ...] = ()
    """0-based class indices, in the order in which they were written, each once."""
    problem: str | None = None


class TagReader:
    """Look tags up in a class list; case, underscores and known other spellings do not matter."""

    def __init__(self, classes: ClassList) -> None:
        self._names = classes.names
        self._index = spellings(classes)
        self._longest = max(len(known.split()) for known in self._index)

    def names(self, names: Iterable[str]) -> Tags:
        """Tags given one by one, as in an XML annotation; an unknown one is a problem."""
        found: dict[int, None] = {}
        unknown: list[str] = []
        for name in names:
            index = self._index.get(spelling(name))
            if index is None:
                unknown.append(name)
            else:
                found[index] = None
        if unknown:
            return Tags((), f"unknown tag {_listed(unknown)}{nearest(unknown[0], self._names)}")
        return Tags(tuple(found))

    def cell(self, text: str) -> Tags:
        """Tags in one cell of a table.

        They are separated by ``;``, ``,`` or ``|``. A part that is no class as a whole is read as
        class names separated by spaces, the longest match first, so that both ``teddy bear`` and
        ``cat dog`` are understood.
        """
        names: list[str] = []
        for part in split_cell(text):
            names += [part] if spelling(part) in self._index else self._words(part)
        return self.names(names)

    def _words(self, part: str) -> list[str]:
        words, names, at = part.split(), [], 0
        while at < len(words):
            for length in range(min(self._longest, len(words) - at), 0, -1):
                name = " ".join(words[at : at + length])
                if spelling(name) in self._index:
                    break
            else:
                return [part]  # name the part as it was written, not a fragment of it
            names.append(name)
            at += length
        return names


def _listed(names: list[str]) -> str:
    different = list(dict.fromkeys(names))
    more = f" and {len(different) - _SHOWN} more" if len(different) > _SHOWN else ""
    shown = (repr(n if len(n) <= _LONGEST else f"{n[:_LONGEST]}…") for n in different[:_SHOWN])
    return ", ".join(shown) + more


def split_cell(text: str) -> list[str]:
    """The parts of a cell between ``;``, ``,`` or ``|``, without the empty ones."""
    return [part.strip() for part in _SEPARATORS.split(text) if part.strip()]
