"""Tags as people write them → class indices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from wsss.data.counted import first_names
from wsss.data.datasets.classes import ClassList, is_background, nearest, spelling, spellings
from wsss.data.datasets.free_text import split_names
from wsss.data.errors import DataError

_MAX_SHOWN, _MAX_LETTERS = 5, 60  # unknown tags in a message, and the letters of each


@dataclass(frozen=True)
class Tags:
    """The tags of one image."""

    indices: tuple[int, ...] = ()
    """0-based class indices, in the order in which they were written, each once."""
    problem: str | None = None


class TagReader:
    """Looks tags up in a class list; case, underscores and other usual spellings do not matter."""

    def __init__(self, classes: ClassList) -> None:
        self._names = classes.names
        self._index = spellings(classes)
        self._longest = max(len(name.split()) for name in self._index)

    def names(self, names: Iterable[str]) -> Tags:
        """Tags given as a list, as in an XML annotation; an unknown tag is a problem."""
        indices = {name: self._index.get(spelling(name)) for name in names}
        unknown = [name for name, index in indices.items() if index is None]
        if unknown:
            hint = nearest(unknown[0], self._names)
            if any(map(is_background, unknown)):
                hint = "; label 0 is the background, which is no class: take the tag out"
            return Tags((), f"unknown tag {_listed(unknown)}{hint}")
        return Tags(tuple(dict.fromkeys(index for index in indices.values() if index is not None)))

    def cell(self, text: str) -> Tags:
        """Tags in a cell of a table, as `split_names` reads them.

        A part that is no class name is read as class names separated by spaces, the longest match
        first, so that both ``teddy bear`` and ``cat dog`` are understood.
        """
        try:
            parts = split_names(text)
        except DataError as error:
            return Tags((), str(error))
        names: list[str] = []
        for part in parts:
            names += [part] if spelling(part) in self._index else self._words(part)
        return self.names(names)

    def _words(self, part: str) -> list[str]:
        words, names, start = part.split(), [], 0
        while start < len(words):
            for end in range(min(start + self._longest, len(words)), start, -1):
                name = " ".join(words[start:end])
                if spelling(name) in self._index:
                    break
            else:
                return [part]  # a message names the whole part, not a fragment of it
            names.append(name)
            start = end
        return names


def _listed(names: list[str]) -> str:
    shown = [repr(n[:_MAX_LETTERS] + "…" * (len(n) > _MAX_LETTERS)) for n in names]
    return first_names(shown, _MAX_SHOWN)
