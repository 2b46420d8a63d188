"""The runs that a paper's table needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wsss.config.base import MIXED, overlay
from wsss.config.errors import ConfigError
from wsss.config.load import from_mapping, read_cached
from wsss.config.model import Config
from wsss.config.runs import MANY, value_text
from wsss.score.papers.table import load_table, unknown_name

_LONGEST = 60  # letters of changes in the name of a run; a longer one takes the row's label


def table_runs(path: Path, presets: Path | None = None) -> dict[str, dict[str, Any]]:
    """The runs that a table needs.

    Args:
        presets: folder of the presets; default: ``presets`` next to the table's folder.

    Returns:
        By label (the row's slug, with ``_seed-<n>`` where the row names seeds) what is to be laid
        over config.yaml: the preset, the changes of the table and of the row, the seed, and as name
        that of the preset, followed by what is changed: ``voc12-weakclip.prompts-4``. So tables
        that need the same run name the same one.

    Raises:
        ConfigError: the table, a preset or what the two give is not valid.
    """
    presets = path.parent.parent / "presets" if presets is None else presets
    runs = {}
    for label, where, mapping, supervision in _mappings(path, presets):
        _validated(mapping, where, supervision)
        runs[label] = mapping
    return runs


def table_configs(path: Path, compute: Mapping[str, Any]) -> dict[str, Config]:
    """The same runs as configurations that take the section ``compute``.

    Raises:
        ConfigError: as `table_runs`.
    """
    runs = _mappings(path, path.parent.parent / "presets")
    return {
        label: _validated(overlay(mapping, {"compute": compute}), where, supervision)
        for label, where, mapping, supervision in runs
    }


def _mappings(path: Path, presets: Path) -> Iterator[tuple[str, str, dict[str, Any], str]]:
    """Label, source for messages, values and supervision (of the row) of each run."""
    table = load_table(path)
    for row in table.rows:
        where = f"{path}, row {row.name!r}"
        for label, seed in row.labels.items():
            mapping = dict(_preset(presets, row.preset, where))
            name = mapping["name"]
            for file in row.overlays:
                mapping = overlay(mapping, _preset(presets, file, where))
            changes = overlay(table.changes, row.changes)
            if seed is not None:
                changes = overlay(changes, {"seed": seed})
            overlays = [value_text(file.rpartition(":")[2]) for file in row.overlays]
            run_name = _run_name(name, overlays, changes, f"{path.stem}-{label}")
            whole = overlay(overlay(mapping, changes), {"name": run_name})
            yield label, where, whole, row.supervision


def _validated(mapping: Mapping[str, Any], where: str, supervision: str) -> Config:
    """The configuration of a run, as a preset over config.yaml; supervised as its row says."""
    config = from_mapping(mapping, where=where)
    if config.retrain.corrected:
        raise ConfigError(
            f"{where}: its run has retrain.corrected, {MIXED}; no row of a paper is of that kind"
        )
    if (config.supervision == "masks") != (supervision == "F"):
        raise ConfigError(
            f"{where}: its run has supervision: {config.supervision}, the row says "
            f"{supervision or 'nothing'}; F is for masks, and for masks alone"
        )
    return config


def _run_name(preset: str, overlays: Sequence[str], changes: Mapping[str, Any], label: str) -> str:
    changed = sorted(f"{key}-{value_text(value)}" for key, value in _leaves(changes))
    words = "_".join([*overlays, *changed])
    if not words:
        return preset
    return f"{preset}.{words if len(words) <= _LONGEST else label}"


def _leaves(changes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in changes.items():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        else:
            yield key, value


def _preset(folder: Path, name: str, where: str) -> Mapping[str, Any]:
    """A preset, or with ``file:run`` what it is for one of its runs."""
    file, _, run = name.partition(":")
    path = folder / f"{file}.yaml"
    if not path.is_file():
        presets = sorted(other.stem for other in folder.glob("*.yaml"))
        raise ConfigError(f"{where}: preset: {unknown_name(file, presets, 'preset')}")
    mapping: Mapping[str, Any] = read_cached(path)
    runs = mapping.get("runs", {})
    if run:
        if run not in runs:
            raise ConfigError(f"{where}: preset: {unknown_name(run, list(runs), f'run of {file}')}")
        shared = {key: value for key, value in mapping.items() if key not in MANY}
        return overlay(shared, runs[run])
    if several := set(MANY) & set(mapping):
        hint = f"name one of them, {file}:{next(iter(runs))}" if runs else "name a single one"
        raise ConfigError(
            f"{where}: preset: {file} is several runs ({', '.join(several)}); {hint}, and lay the "
            "rest over it with changes"
        )
    return mapping
