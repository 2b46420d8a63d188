"""Several runs of one configuration: named ones, a matrix, and one for each value of a key."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from wsss.config.base import overlay
from wsss.config.errors import ConfigError
from wsss.config.load import from_mapping
from wsss.config.matrix import AXES, SWEPT
from wsss.config.model import Config

MANY = ("sweep", "runs", "matrix")
"""Sections with which a configuration stands for several runs."""
_MOST_RUNS = 1000
_LONGEST = 200  # bytes of a folder's name; file systems take 255
_MOST_SHOWN = 40


def expand_runs(mapping: Mapping[str, Any], *, where: str = "config") -> dict[str, Config]:
    """The runs of a configuration by their label; without several runs, one with an empty label.

    A label consists of the run's name or its entries in the matrix (``grad-cam/weclip``), if any,
    and of the last word of each swept key with its value: ``prompts-8``. Runs are named
    ``<name>.<label>``, with dots instead of slashes.

    Args:
        mapping: see `wsss.config.load.from_mapping`.
        where: its source, for messages.

    Raises:
        ConfigError: a run's configuration is not valid, a key cannot be swept, or two runs have the
            same label.
    """
    base = from_mapping(mapping, where=where)
    if not base.sweep and not base.runs and not base.matrix.axes:
        return {"": base}
    _check_keys(base, where)
    _check_values(base, where)
    _check_count(base, where)
    shared = {key: value for key, value in mapping.items() if key not in MANY}
    runs: dict[str, Config] = {}
    labels: dict[str, str] = {}  # by their spelling without case
    separator = "/" if base.matrix.axes else "_"
    for (names, change), (words, values) in itertools.product(_entries(base), _sweep(base)):
        label = separator.join([*names, "_".join(words)] if words else names)
        _check_label(base.name, label, where)
        if (other := labels.setdefault(label.casefold(), label)) in runs:
            differ = (
                "" if other == label else f" and {other!r}, which some file systems treat as equal"
            )
            raise ConfigError(f"{where}: sweep: two runs would be called {label!r}{differ}")
        options = overlay(overlay(change, values), {"name": run_name(base.name, label)})
        runs[label] = from_mapping(overlay(shared, options), where=f"{where}, run {label}")
    return runs


def run_name(name: str, label: str) -> str:
    """The name of a run in its records."""
    return f"{name}.{label.replace('/', '.')}"


def _entries(base: Config) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """Names of runs, or of the entries of a matrix, with the options that they change."""
    if base.runs:
        yield from (([value_text(name)], change) for name, change in base.runs.items())
        return
    for entries in itertools.product(*(getattr(base.matrix, a).items() for a in base.matrix.axes)):
        change: dict[str, Any] = {}
        for _, options in entries:
            change = overlay(change, options)
        yield [value_text(name) for name, _ in entries], change


def _sweep(base: Config) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """Each combination of swept values: its words, and the options that it changes."""
    for values in itertools.product(*base.sweep.values()):
        chosen = dict(zip(base.sweep, values, strict=True))
        change: dict[str, Any] = {}
        for key, value in chosen.items():
            change = overlay(change, _nested(key, value))
        yield [f"{key.split('.')[-1]}-{value_text(value)}" for key, value in chosen.items()], change


def _check_keys(base: Config, where: str) -> None:
    """Raise if a run changes what all runs share, or an entry what its axis does not cover."""
    if base.runs and base.matrix.axes:
        raise ConfigError(f"{where}: runs and matrix both name the runs; remove one of them")
    for key in [*base.sweep, *(key for run in base.runs.values() for key in run)]:
        section = key.split(".")[0]
        if section not in Config.model_fields:
            near = difflib.get_close_matches(section, SWEPT, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{where}: sweep or runs: {key!r} is no key{hint}")
        if section not in SWEPT:
            raise ConfigError(
                f"{where}: sweep: {key!r} decides what all runs share; keys that can be swept are "
                f"seed, supervision and those of "
                f"{', '.join(sorted(SWEPT - {'seed', 'supervision'}))}"
            )
    for axis in base.matrix.axes:
        for name, change in getattr(base.matrix, axis).items():
            if others := set(change) - set(AXES[axis]):
                raise ConfigError(
                    f"{where}: matrix.{axis}.{name} changes {_listed(others)}; on this axis "
                    f"{_listed(AXES[axis])} may differ"
                )


def _check_values(base: Config, where: str) -> None:
    """Raise where a swept key has no value: there would be no run."""
    for key, values in base.sweep.items():
        if not values:
            raise ConfigError(f"{where}: sweep: {key} has no value; list some, or remove the key")


def _check_count(base: Config, where: str) -> None:
    """Raise before too many combinations are built."""
    named = len(base.runs) or math.prod(len(getattr(base.matrix, a)) for a in base.matrix.axes)
    count = named * math.prod(map(len, base.sweep.values()))
    if count > _MOST_RUNS:
        raise ConfigError(f"{where}: sweep: stands for {count} runs, over {_MOST_RUNS}; sweep less")


def _check_label(name: str, label: str, where: str) -> None:
    """Raise if the label is no valid path of visible folders, or too long beside the name."""
    for part in label.split("/"):
        if not part or part.startswith((".", "-")) or len(part.encode()) > _LONGEST:
            raise ConfigError(
                f"{where}: a run would be called {_shortened(part)!r}; the name of a folder "
                f"begins with a letter, digit or _ and has at most {_LONGEST} bytes: choose "
                "another name, or for long values name them under runs"
            )
    if (length := len(run_name(name, label).encode())) > _LONGEST:
        raise ConfigError(
            f"{where}: the name {_shortened(name)!r} and the run {_shortened(label)!r} have "
            f"{length} bytes together, over {_LONGEST}; shorten one of them"
        )


def _shortened(name: str) -> str:
    return name if len(name) <= _MOST_SHOWN else f"{name[:_MOST_SHOWN]}…"


def _listed(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))


def _nested(key: str, value: object) -> dict[str, Any]:
    first, _, rest = key.partition(".")
    return {first: _nested(rest, value) if rest else value}


def value_text(value: object) -> str:
    """A value as part of a folder's name."""
    text = "-".join(map(str, value)) if isinstance(value, list) else str(value)
    return "".join(c if (c.isascii() and c.isalnum()) or c in "._-" else "-" for c in text)
