"""Read text from untrusted sources: regular files of bounded size, and YAML of plain values only.

A YAML file of a few hundred bytes can expand to gigabytes (aliases of aliases), recurse without end
or name Python objects. Here only a tree of plain values of moderate size is read, each key once;
everything else is refused before it is built.
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

from wsss.config.errors import ConfigError
from wsss.errors import raise_unless_about

YAML_LIMIT: Final = 2**20
"""Bytes of a YAML file."""
_MAX_VALUES = 100_000  # aliases count as their targets; the shipped file has 500
_MAX_DEPTH = 40
_WILDCARD = re.compile(r"(?<!\$)\{\s*\w+[^{}]*\}")
_LARGEST = 2**63 - 1
_Base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # of libyaml: ten times as fast


def read_bytes(path: Path, limit: int) -> bytes:
    """The bytes of a regular file; never waits for a FIFO or drains a device.

    Args:
        limit: largest size, bytes.

    Raises:
        OSError: it cannot be opened, is no regular file, or is larger than that.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # NUL in the path
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    with open(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is no regular file", str(path))
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"has more than {limit} bytes", str(path))
    return content


def read_yaml(file: Path) -> Any:
    """Plain values of a YAML file.

    Raises:
        ConfigError: it is missing, no text, no YAML, or holds what is refused here.
    """
    try:
        return parse_yaml(read_bytes(file, YAML_LIMIT).decode("utf-8-sig"))
    except OSError as error:
        raise_unless_about(file, error)
        raise ConfigError(
            f"{file}: cannot be read ({error.strerror}); pass an existing YAML file"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file}: is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        # PyYAML calls the source of a text so; its line is one of the file.
        text = str(error).replace('in "<unicode string>", ', "in ")
        hint = "; indent with spaces, not tabs" if "cannot start any token" in text else ""
        raise ConfigError(f"{file}: is not valid YAML: {text}{hint}") from None


def parse_yaml(text: str) -> Any:
    """Plain values of a YAML text.

    Raises:
        yaml.YAMLError: it is no YAML, names objects other than plain values, writes a key twice,
            refers to itself, or expands to too much.
        ValueError: an impossible number or date.
    """
    _check_extent(text)
    return yaml.load(text, Loader=_Loader)


def invalid_values(value: object) -> Iterator[str]:
    """Values that no configuration needs, each with its key.

    These are control characters, wildcards of the workflow, unbounded numbers, and values that
    contain themselves or expand to too much; the workflow engine reads such values.
    """
    waiting: list[tuple[str, int, object]] = [("", 0, value)]
    for _ in range(_MAX_VALUES):
        if not waiting:
            return
        key, depth, item = waiting.pop()
        if isinstance(item, dict | list | tuple):
            if depth == _MAX_DEPTH:
                yield f"{key}: sections inside sections, more than {_MAX_DEPTH} deep"
                return
            pairs = list(item.items() if isinstance(item, dict) else enumerate(item))
            if isinstance(item, dict):
                waiting += [(f"a key of {key or 'the file'}", depth + 1, name) for name, _ in pairs]
            names = [f"{key}.{name}" if key else str(name) for name, _ in pairs]
            waiting += zip(names, itertools.repeat(depth + 1), (inner for _, inner in pairs))
        elif problem := _problem(item):
            yield f"{key}: {problem}"
    yield f"stands for more than {_MAX_VALUES} values"


def _problem(value: object) -> str:
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
    """Count the values that a text expands to, from its events alone."""
    total = 0
    sizes: dict[str, int] = {}  # by anchor; 0 while it is still open
    opened: list[tuple[str | None, int]] = []
    for event in yaml.parse(text, Loader=_Base):
        if isinstance(event, yaml.AliasEvent):
            size = sizes.get(str(event.anchor), 1)  # the composer refuses an unknown anchor
            if not size:
                raise _at(event, f"*{event.anchor} refers to what it is a part of")
            total += size
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, total))
            total += 1
            if event.anchor:
                sizes[event.anchor] = 0
            if len(opened) > _MAX_DEPTH:
                raise _at(event, f"sections inside sections, more than {_MAX_DEPTH} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor:
                sizes[anchor] = total - before
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor:
                sizes[event.anchor] = 1
        if total > _MAX_VALUES:
            raise _at(event, f"stands for more than {_MAX_VALUES} values")


def _at(event: yaml.Event, problem: str) -> yaml.YAMLError:
    mark = event.start_mark
    return yaml.YAMLError(problem if mark is None else f"line {mark.line + 1}: {problem}")


class _Loader(_Base):  # type: ignore[misc, valid-type]
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
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        for key, _ in node.value:
            if not isinstance(value := self.construct_object(key), str):
                written = key.value if isinstance(key, yaml.ScalarNode) else value
                raise yaml.MarkedYAMLError(
                    problem=f"the key {written} is read as {value}; put it in quotation marks",
                    problem_mark=key.start_mark,
                )
        return mapping
