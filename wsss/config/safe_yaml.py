"""Read text that may come from anywhere: regular files, bounded, and of YAML plain values alone.

A YAML file of a few hundred bytes can stand for gigabytes (aliases of aliases), recurse without end
or name Python objects. What is read here is a tree of plain values, each key once, of a size that a
configuration has; everything else is refused before it is built.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

MOST_YAML: Final = 2**20
"""Bytes of a YAML file."""
_MOST_VALUES = 100_000  # aliases count as what they stand for; the shipped file has 500
_DEEPEST = 40
_WILDCARD = re.compile(r"(?<!\$)\{\s*\w+[^{}]*\}")
_LARGEST = 2**63 - 1


def read_bytes(path: Path, most: int) -> bytes:
    """The bytes of a regular file; a FIFO is not waited for, a device not drained.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        OSError: it cannot be opened, is no regular file, or is larger.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # NUL in the path
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    with open(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "is no regular file", str(path))
        content = stream.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"has more than {most} bytes", str(path))
    return content


def parse_yaml(text: str) -> Any:
    """Plain values of a YAML text.

    Raises:
        yaml.YAMLError: it is no YAML, names other objects than plain values, writes a key twice,
            refers to itself, or stands for too much.
        ValueError: a number or date that cannot be.
    """
    _check_extent(text)
    return yaml.load(text, Loader=_Loader)


def invalid_values(value: object) -> Iterator[str]:
    """What no configuration needs, each with its key.

    These are control characters, wildcards of the workflow, numbers without bound, and values that
    hold themselves or stand for too much, as those that the workflow engine reads may do.
    """
    waiting: list[tuple[str, int, object]] = [("", 0, value)]
    for _ in range(_MOST_VALUES):
        if not waiting:
            return
        place, depth, one = waiting.pop()
        if isinstance(one, dict | list | tuple):
            if depth == _DEEPEST:
                yield f"{place}: sections inside sections, more than {_DEEPEST} deep"
                return
            pairs = list(one.items() if isinstance(one, dict) else enumerate(one))
            if isinstance(one, dict):
                waiting += [(f"a key of {place or 'the file'}", depth + 1, key) for key, _ in pairs]
            names = (f"{place}.{key}" if place else str(key) for key, _ in pairs)
            waiting += zip(names, itertools.repeat(depth + 1), (inner for _, inner in pairs))
        elif what := _odd(one):
            yield f"{place}: {what}"
    yield f"stands for more than {_MOST_VALUES} values"


def _odd(value: object) -> str:
    if isinstance(value, str):
        control = next((c for c in value if unicodedata.category(c) in ("Cc", "Cs")), None)
        if control:
            return f"holds the control character {control!r}; take it out"
        wildcard = _WILDCARD.search(value)
        if wildcard:
            return f"holds {wildcard[0]}, which the workflow would replace; rename it"
    if isinstance(value, float) and not math.isfinite(value):
        return f"is {value}, expected a finite number"
    if isinstance(value, int) and abs(value) > _LARGEST:
        return "is a whole number beyond 64 bits; write a smaller one"
    return ""


def _check_extent(text: str) -> None:
    """Go through the events of a text, of which none is kept, and count what they stand for."""
    total = 0
    sizes: dict[str, int] = {}  # by anchor; of one that is still open 0
    opened: list[tuple[str | None, int]] = []
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            size = sizes.get(str(event.anchor), 1)  # an unknown one is the composer's business
            if not size:
                raise _at(event, f"*{event.anchor} refers to what it is a part of")
            total += size
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, total))
            total += 1
            if event.anchor:
                sizes[event.anchor] = 0
            if len(opened) > _DEEPEST:
                raise _at(event, f"sections inside sections, more than {_DEEPEST} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor:
                sizes[anchor] = total - before
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor:
                sizes[event.anchor] = 1
        if total > _MOST_VALUES:
            raise _at(event, f"stands for more than {_MOST_VALUES} values")


def _at(event: yaml.Event, what: str) -> yaml.YAMLError:
    mark = event.start_mark
    return yaml.YAMLError(what if mark is None else f"line {mark.line + 1}: {what}")


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value!r} is written twice; keep one",
                        problem_mark=key.start_mark,
                    )
                seen.add((key.tag, key.value))
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        if odd := [key for key in found if not isinstance(key, str)]:
            raise yaml.MarkedYAMLError(
                problem=f"the key {odd[0]!r} is no text; put it into quotes",
                problem_mark=node.start_mark,
            )
        return found
