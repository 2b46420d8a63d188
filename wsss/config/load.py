"""Read YAML into a `Config`, with errors that a person can act on."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from wsss.config.base import Section, resolve_variant
from wsss.config.cross_checks import cross_checks
from wsss.config.model import Config
from wsss.config.safe_yaml import MOST_YAML, invalid_values, parse_yaml, read_bytes
from wsss.errors import WsssError

SHARED_VARIABLE = "WSSS_SHARED"
SHARED_DEFAULT = "../shared"
PACKAGE_VARIABLE = "WSSS_PACKAGE"
_LONGEST_SHOWN = 200


class ConfigError(WsssError, ValueError):
    """The configuration is wrong; the message names each key, what was found and what to do."""


def expand_path(text: str) -> Path:
    """Expand ``~``, environment variables, ``${WSSS_SHARED}`` (default ``../shared``) and
    ``${WSSS_PACKAGE}`` (the folder of this package); relative paths stay relative.
    """
    known = {
        SHARED_VARIABLE: os.environ.get(SHARED_VARIABLE, SHARED_DEFAULT),
        PACKAGE_VARIABLE: str(Path(__file__).parent.parent),
    }
    for name, value in known.items():
        text = text.replace("${" + name + "}", value)
    return Path(os.path.expandvars(text)).expanduser()


def load_config(*files: Path) -> Config:
    """Read a YAML file and lay further ones over it, key by key.

    Args:
        files: the base configuration first, then overlays such as presets.

    Raises:
        ConfigError: a file is missing or is no YAML mapping, or the result is not valid.
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
    return from_mapping(merged, where=", ".join(map(str, files)))


def read_yaml(file: Path) -> Any:
    """Plain values of a YAML file.

    Raises:
        ConfigError: it is missing, no text, no YAML, or holds what `wsss.config.safe_yaml` refuses.
    """
    try:
        return parse_yaml(read_bytes(file, MOST_YAML).decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(
            f"{file}: cannot be read ({error.strerror}); pass an existing YAML file"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file}: is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{file}: is not valid YAML: {error}") from None


def overlay(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Lay ``top`` over ``base``: mappings merge, everything else is replaced."""
    result = dict(base)
    for key, value in top.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = overlay(result[key], value)
        else:
            result[key] = value
    return result


def from_mapping(
    mapping: Mapping[str, Any], *, where: str = "config", partial: bool = False
) -> Config:
    """Validate ``mapping`` and resolve every ``auto`` by the variant.

    Args:
        mapping: sections and keys; what is left out takes its default.
        where: where it came from, for messages.
        partial: it holds some sections only, so do not hold sections against each other.

    Raises:
        ConfigError: naming every wrong key at once; an unknown key is answered with the nearest
            valid one.
    """
    if odd := list(invalid_values(mapping)):
        raise ConfigError(f"{where}: not a valid configuration\n  " + "\n  ".join(odd))
    try:
        config = Config.model_validate(mapping)
    except ValidationError as error:
        lines = [_explain(item) for item in error.errors()]
        raise ConfigError(f"{where}: not a valid configuration\n  " + "\n  ".join(lines)) from None
    if not partial and (wrong := cross_checks(config)):
        raise ConfigError(f"{where}: not a valid configuration\n  " + "\n  ".join(wrong))
    config = config.model_copy(update=_of_chain(config))
    resolved = resolve_variant(config, config.variant)
    assert isinstance(resolved, Config)
    return resolved


def _of_chain(config: Config) -> dict[str, Section]:
    """Sections with those ``auto`` replaced that hang on the chain."""
    update: dict[str, Section] = {}
    for name, values in config.chain_values().items():
        section = getattr(config, name)
        mine = {key: value for key, value in values.items() if getattr(section, key) == "auto"}
        update[name] = section.model_copy(update=mine)
    return update


def _explain(item: Any) -> str:
    place = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{place}: unknown key{_nearest(item['loc'])}"
    found = (
        "" if item["type"] in {"missing", "value_error"} else f" (found {_shown(item['input'])})"
    )
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}{found}" if place else message


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]} …"


def _nearest(location: tuple[Any, ...]) -> str:
    """``; did you mean …?`` with the nearest key of the section that holds the unknown one."""
    section: type[Section] = Config
    for part in location[:-1]:
        field = section.model_fields.get(str(part))
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, Section)):
            return ""
        section = annotation
    valid = list(section.model_fields)
    key = str(location[-1])
    close = difflib.get_close_matches(key, valid, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {'.'.join([*map(str, location[:-1]), close[0]])}?"
    elsewhere = [path for path in _all_keys(Config) if path.rsplit(".", 1)[-1] == key]
    if elsewhere:
        return f"; did you mean {' or '.join(elsewhere)}?"
    return f"; valid keys here: {', '.join(valid)}"


def _all_keys(section: type[Section], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, field in section.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            keys += _all_keys(field.annotation, f"{prefix}{name}.")
    return keys
