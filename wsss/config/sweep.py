"""Several runs of one configuration: named ones, and one for each value of a key."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from wsss.config.load import ConfigError, from_mapping, overlay
from wsss.config.model import SWEPT, Config


def points(mapping: Mapping[str, Any], *, where: str = "config") -> dict[str, Config]:
    """The runs of a configuration by their label; a single one of an empty label without a sweep.

    A label is made of the run's name, if it has one, and of the last word of each swept key with
    its value: ``prompts-8``. Runs are named ``<name>.<label>``.

    Args:
        mapping: see `wsss.config.load.from_mapping`.
        where: where it came from, for messages.

    Raises:
        ConfigError: a run's configuration is not valid, a key cannot be swept, or two runs have the
            same label.
    """
    base = from_mapping(mapping, where=where)
    if not base.sweep and not base.runs:
        return {"": base}
    for key in [*base.sweep, *(key for run in base.runs.values() for key in run)]:
        if key.split(".")[0] not in SWEPT:
            raise ConfigError(
                f"{where}: sweep: {key!r} decides what all runs share; keys that can be swept are "
                f"seed and those of {', '.join(sorted(SWEPT - {'seed'}))}"
            )
    bare = {key: value for key, value in mapping.items() if key not in ("sweep", "runs")}
    found: dict[str, Config] = {}
    for run, change in base.runs.items() or [("", {})]:
        for values in itertools.product(*base.sweep.values()):
            chosen = dict(zip(base.sweep, values, strict=True))
            words = [_text(run)] if run else []
            words += [f"{key.split('.')[-1]}-{_text(v)}" for key, v in chosen.items()]
            label = "_".join(words)
            if label in found:
                raise ConfigError(f"{where}: sweep: two runs would be called {label!r}")
            own = overlay(change, {"name": f"{base.name}.{label}"})
            for key, value in chosen.items():
                own = overlay(own, _nested(key, value))
            found[label] = from_mapping(overlay(bare, own), where=f"{where}, run {label}")
    return found


def _nested(key: str, value: object) -> dict[str, Any]:
    first, _, rest = key.partition(".")
    return {first: _nested(rest, value) if rest else value}


def _text(value: object) -> str:
    """A value as part of a folder's name."""
    text = "-".join(map(str, value)) if isinstance(value, list) else str(value)
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in text)
