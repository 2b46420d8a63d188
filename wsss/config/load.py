"""Read YAML into a `Config`, with errors that a person can act on."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wsss.config.base import Section, inner_section, overlay
from wsss.config.cross_checks import cross_checks
from wsss.config.errors import NO_SECTION, ConfigError, explain_value, shown
from wsss.config.model import Config
from wsss.config.safe_yaml import invalid_values, read_yaml

_HEAD_KEYS = {
    "crop_cams": "crop_visibility",
    "crop_gate": "visibility_threshold",
    "unsure": "ignore_band (labelled: null)",
    "unsure_band": "ignore_band",
}
OLD_KEYS: dict[str, str] = {
    "clip.shape": "clip.keep_ratio (kept: true, square: false)",
    "clip.square": "clip.input_size",
    "cams.affinity.sinkhorn_rounds": "cams.affinity.sinkhorn_iterations",
    "cams.patch_text.extent": "cams.patch_text.min_max_over",
    "cams.patch_text.tse.keep": "cams.patch_text.tse.top_share",
    "cams.patch_text.tse.vectors": "cams.patch_text.tse.centering (centred: true, raw: false)",
    "refine.train.max_share": "refine.train.cat_max_ratio",
    **{
        f"refine.{method}.{old}": f"refine.{method}.{new}"
        for method in ("weclip", "excel")
        for old, new in _HEAD_KEYS.items()
    },
    "refine.weclip.rfm_distance": "refine.weclip.block_distance",
    "refine.excel.own_labels_start": "refine.excel.self_training_start",
    "refine.weakclip.taps": "refine.weakclip.out_indices",
    "refine.weakclip.boundary.sigmas": "refine.weakclip.boundary.sigma_unit",
    "retrain.max_share": "retrain.cat_max_ratio",
    "predict.own_crf": "predict.crf_settings",
}
"""Keys of release 0.1 and what replaces them; to be removed after 0.2."""
OLD_VALUES: dict[tuple[str, str], str] = {
    ("cams.patch_text.tse.form", "hunted"): "topk",
    ("refine.weakclip.auxiliary_mean", "known"): "labelled",
}
"""Values of release 0.1 and what replaces them; to be removed after 0.2."""


def load_config(*files: Path, options: Mapping[str, Any] | None = None) -> Config:
    """Read a YAML file and overlay further ones, key by key.

    Args:
        files: the base configuration first, then overlays such as presets.
        options: sections and keys of the command line, which overlay the files.

    Raises:
        ConfigError: a file is missing or is no YAML mapping, or the result is not valid.
    """
    where = ", ".join([*map(str, files), *(["options of the command line"] if options else [])])
    return from_mapping(overlay(merged_yaml(*files), options or {}), where=where)


def merged_yaml(*files: Path) -> dict[str, Any]:
    """The plain values of a YAML file with those of further ones laid over it.

    Raises:
        ConfigError: a file is missing or is no YAML mapping.
    """
    merged: dict[str, Any] = {}
    for file in files:
        content = read_yaml(file)
        if content is None:
            continue
        if not isinstance(content, dict):
            raise ConfigError(
                f"{file}: expected a mapping of sections, found {type(content).__name__}"
            )
        merged = overlay(merged, content)
    return merged


def read_cached(path: Path) -> Any:
    """`read_yaml`, once per state of the file: the workflow reads all tables at every start."""
    try:
        stat = path.stat()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    return _read_once(path, stat.st_mtime_ns, stat.st_size)


@functools.cache
def _read_once(path: Path, _changed: int, _size: int) -> Any:
    return read_yaml(path)


def from_mapping(
    mapping: Mapping[str, Any], *, where: str = "config", partial: bool = False
) -> Config:
    """Validate ``mapping``; every ``auto`` gets the value of the variant or of the chain.

    Args:
        mapping: sections and keys; missing ones take their default.
        where: its source, for messages.
        partial: it holds only some sections, so skip the checks between sections.

    Raises:
        ConfigError: it names all wrong keys at once; for an unknown key the nearest valid one,
            for an old key the new one.
    """
    if invalid := list(invalid_values(mapping)):
        raise ConfigError(f"{where}: not a valid configuration\n  " + "\n  ".join(invalid))
    if partial:
        mapping = {"shards": 1, **mapping}  # of one job; what auto means need not be looked up
    try:
        config = Config.model_validate(mapping)
    except ValidationError as error:
        lines = [_explain(item) for item in error.errors()]
        raise ConfigError(f"{where}: not a valid configuration\n  " + "\n  ".join(lines)) from None
    if not partial and (errors := cross_checks(config)):
        raise ConfigError(f"{where}: not a valid configuration\n  " + "\n  ".join(errors))
    return config


def _explain(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["loc"][-1:] == ("[key]",):  # the part before it is the key, written another way
        return f"a key of {'.'.join(map(str, item['loc'][:-2]))}: {explain_value(item)}"
    if item["type"] == "extra_forbidden":
        if key in OLD_KEYS:
            return f"{key}: is now {OLD_KEYS[key]}"
        return f"{key}: unknown key{_nearest(item['loc'])}"
    if renamed := OLD_VALUES.get((key, str(item["input"]))):
        return f"{key}: {item['input']} is now {renamed}"
    message = explain_value(item)
    if item["type"] in NO_SECTION and (section := _section_at(item["loc"])):
        message = f"found {shown(item['input'])}, {_expected_section(section)}"
    return f"{key}: {message}" if key else message


def _expected_section(section: type[Section]) -> str:
    """What to write in place of a value that is no section, with an example."""
    defaults = {name: field.default for name, field in section.model_fields.items()}
    texts = {name: value for name, value in defaults.items() if value and isinstance(value, str)}
    numbers = {n: v for n, v in defaults.items() if type(v) in (int, float)}
    example = next(iter((numbers | texts).items()), None)
    shown = f", e.g. {{{example[0]}: {example[1]}}}" if example else ""
    off = "; to turn it off: {enabled: false}" if "enabled" in defaults else ""
    return f"expected a section{shown}{off}"


def _nearest(location: tuple[Any, ...]) -> str:
    """``; did you mean …?`` with the nearest key of the section that holds the unknown one."""
    section = _section_at(location[:-1])
    if section is None:
        return ""
    valid = list(section.model_fields)
    key, parent = str(location[-1]), ".".join(map(str, location[:-1]))
    same_name = [path for path in all_keys() if path.rsplit(".", 1)[-1] == key]
    deeper = [path for path in same_name if parent and path.startswith(f"{parent}.")]
    deeper = [path for path in deeper if path.count(".") == min(p.count(".") for p in deeper)]
    close = difflib.get_close_matches(key, valid, n=1, cutoff=0.6)
    if close and not deeper:
        return f"; did you mean {f'{parent}.' if parent else ''}{close[0]}?"
    if same_name:
        return f"; did you mean {' or '.join(deeper or same_name)}?"
    return f"; valid keys here: {', '.join(valid)}"


def _section_at(location: tuple[Any, ...]) -> type[Section] | None:
    """The section that a key names; None if it is none."""
    section: type[Section] = Config
    for part in location:
        field = section.model_fields.get(str(part))
        inner = inner_section(field) if field else None
        if inner is None:
            return None
        section = inner
    return section


def all_keys(section: type[Section] = Config, prefix: str = "") -> list[str]:
    """Every key of the configuration with dots, sections included."""
    keys: list[str] = []
    for name, field in section.model_fields.items():
        keys.append(prefix + name)
        if inner := inner_section(field):
            keys += all_keys(inner, f"{prefix}{name}.")
    return keys
