"""Several runs of one configuration: named ones, a matrix, and one for each value of a key."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from wsss.config.errors import ConfigError
from wsss.config.load import from_mapping, overlay
from wsss.config.matrix import AXES, SWEPT
from wsss.config.model import Config

MANY = ("sweep", "runs", "matrix")
"""Sections with which a configuration stands for several runs."""
_MOST_RUNS = 1000
_LONGEST = 200  # bytes of a folder's name; file systems take 255


def points(mapping: Mapping[str, Any], *, where: str = "config") -> dict[str, Config]:
    """The runs of a configuration by their label; a single one of an empty label without a sweep.

    A label is made of the run's name or its places in the matrix (``grad-cam/weclip``), if it has
    any, and of the last word of each swept key with its value: ``prompts-8``. Runs are named
    ``<name>.<label>``, with dots for slashes.

    Args:
        mapping: see `wsss.config.load.from_mapping`.
        where: where it came from, for messages.

    Raises:
        ConfigError: a run's configuration is not valid, a key cannot be swept, or two runs have the
            same label.
    """
    base = from_mapping(mapping, where=where)
    if not base.sweep and not base.runs and not base.matrix.axes:
        return {"": base}
    _check_keys(base, where)
    _check_count(base, where)
    bare = {key: value for key, value in mapping.items() if key not in MANY}
    found: dict[str, Config] = {}
    spelt: dict[str, str] = {}
    for (places, change), (words, values) in itertools.product(_named(base), _swept(base)):
        swept = "_".join(words)
        if base.matrix.axes:
            label = "/".join([*places, swept] if swept else places)
        else:
            label = "_".join([*places, swept] if swept else places)
        _check_label(label, where)
        if (other := spelt.setdefault(label.casefold(), label)) in found:
            differ = "" if other == label else f" and {other!r}, which some disks take for the same"
            raise ConfigError(f"{where}: sweep: two runs would be called {label!r}{differ}")
        own = overlay(overlay(change, values), {"name": run_name(base.name, label)})
        found[label] = from_mapping(overlay(bare, own), where=f"{where}, run {label}")
    return found


def run_name(name: str, label: str) -> str:
    """What a run of a configuration is called in its records."""
    return f"{name}.{label.replace('/', '.')}"


def _named(base: Config) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """Places of the matrix, or names of runs, with what is laid over the configuration."""
    if base.runs:
        yield from (([value_text(name)], change) for name, change in base.runs.items())
        return
    for entries in itertools.product(*(getattr(base.matrix, a).items() for a in base.matrix.axes)):
        change: dict[str, Any] = {}
        for _, own in entries:
            change = overlay(change, own)
        yield [value_text(name) for name, _ in entries], change


def _swept(base: Config) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """Each combination of swept values: its words, and what is laid over the configuration."""
    for values in itertools.product(*base.sweep.values()):
        chosen = dict(zip(base.sweep, values, strict=True))
        change: dict[str, Any] = {}
        for key, value in chosen.items():
            change = overlay(change, _nested(key, value))
        yield [f"{key.split('.')[-1]}-{value_text(value)}" for key, value in chosen.items()], change


def _check_keys(base: Config, where: str) -> None:
    """Raise if a run would change what all share, or an axis what another one is for."""
    if base.runs and base.matrix.axes:
        raise ConfigError(f"{where}: runs and matrix both name the runs; keep one of them")
    for key in [*base.sweep, *(key for run in base.runs.values() for key in run)]:
        if key.split(".")[0] not in SWEPT:
            raise ConfigError(
                f"{where}: sweep: {key!r} decides what all runs share; keys that can be swept are "
                f"seed and those of {', '.join(sorted(SWEPT - {'seed'}))}"
            )
    for axis in base.matrix.axes:
        for name, change in getattr(base.matrix, axis).items():
            if wrong := set(change) - set(AXES[axis]):
                raise ConfigError(
                    f"{where}: matrix.{axis}.{name} changes {_listed(wrong)}; on this axis "
                    f"{_listed(AXES[axis])} may differ"
                )


def _check_count(base: Config, where: str) -> None:
    """Raise before combinations are made that nothing could hold."""
    named = len(base.runs) or math.prod(len(getattr(base.matrix, a)) for a in base.matrix.axes)
    count = named * math.prod(map(len, base.sweep.values()))
    if count > _MOST_RUNS:
        raise ConfigError(f"{where}: sweep: stands for {count} runs, over {_MOST_RUNS}; sweep less")


def _check_label(label: str, where: str) -> None:
    """Raise if a run's folder would lie somewhere else, be hidden, or have no name that can be."""
    for part in label.split("/"):
        if not part or part.startswith((".", "-")) or len(part.encode()) > _LONGEST:
            shown = part if len(part) < _LONGEST else f"{part[:40]}…"
            raise ConfigError(
                f"{where}: a run would be called {shown!r}; the name of a folder begins with a "
                f"letter, digit or _ and has at most {_LONGEST} bytes: choose another name, or for "
                "long values name them under runs"
            )


def _listed(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))


def _nested(key: str, value: object) -> dict[str, Any]:
    first, _, rest = key.partition(".")
    return {first: _nested(rest, value) if rest else value}


def value_text(value: object) -> str:
    """A value as part of a folder's name."""
    text = "-".join(map(str, value)) if isinstance(value, list) else str(value)
    return "".join(c if (c.isascii() and c.isalnum()) or c in "._-" else "-" for c in text)
