"""From the configuration to what a stage is given, and back from the text that the workflow sends.

A stage is given nothing but the values that it declares (`wsss.artifacts.stage`), so a stage that
reads an undeclared value fails at once instead of missing a rerun later.
"""

from __future__ import annotations

import json
from typing import Any

from wsss.artifacts.code_digest import code_digest, imported_packages
from wsss.artifacts.provenance import package_versions
from wsss.artifacts.stage import STAGES
from wsss.config.errors import ConfigError
from wsss.config.load import from_mapping
from wsss.config.model import Config
from wsss.refine.registry import METHODS, method_module, released_module


def entry_modules(stage: str, config: Config) -> tuple[str, ...]:
    """The stage's entry modules, with those that the configuration chooses."""
    modules = STAGES[stage].modules
    method = config.refine.method
    if stage.startswith("refine") and method in METHODS:
        modules += (method_module(method),)
    if stage == "refine_import" and method in METHODS and METHODS[method].released:
        modules += (released_module(method),)
    return modules


def stage_sections(stage: str, config: Config) -> str:
    """The values that ``stage`` reads, as one line of JSON."""
    return json.dumps(STAGES[stage].values(config), sort_keys=True)


def stage_code(stage: str, config: Config) -> str:
    """Digest of the code that ``stage`` runs."""
    return code_digest(entry_modules(stage, config))


def stage_packages(stage: str, config: Config) -> str:
    """Versions of the packages that ``stage`` uses, for the engine's own environment."""
    versions = package_versions(imported_packages(entry_modules(stage, config)))
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def config_of_sections(stage: str, text: str, **compute: Any) -> Config:
    """The configuration behind the text of `stage_sections`.

    Args:
        stage: the stage's name.
        text: what `stage_sections` gave.
        compute: the fields of the section `compute`.

    Raises:
        ConfigError: the text is not what the stage declares.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--sections of {stage}: is no JSON ({error})") from None
    if not isinstance(values, dict):
        raise ConfigError(f"--sections of {stage}: found {type(values).__name__}, expected keys")
    expected = sorted({key.partition(".")[0] for key in STAGES[stage].reads})
    if sorted(values) != expected:
        raise ConfigError(f"--sections of {stage}: found {sorted(values)}, expected {expected}")
    return from_mapping(values | {"compute": compute}, where="--sections", partial=True)
