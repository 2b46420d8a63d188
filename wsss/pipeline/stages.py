"""What a stage depends on under one configuration: the values that it reads, and its code."""

from __future__ import annotations

import functools
import json

from wsss.artifacts.code_digest import code_digest, imported_packages, module_digests
from wsss.artifacts.digest import digest_json
from wsss.artifacts.provenance import package_versions
from wsss.artifacts.stage import STAGES
from wsss.config.clip import encoder_module
from wsss.config.model import Config
from wsss.refine.registry import METHODS, method_modules, released_module


def runs_chosen_code(stage: str) -> bool:
    """Whether the configuration chooses some of the stage's modules: the refiner, an encoder."""
    return stage == "cams" or stage.startswith("refine")


def entry_modules(stage: str, config: Config) -> tuple[str, ...]:
    """The stage's entry modules, with those that the configuration chooses, see above."""
    modules = STAGES[stage].modules
    method = config.refine.method
    if stage.startswith("refine") and method in METHODS:
        modules += method_modules(method, config.cams)
    if stage == "cams":
        modules += tuple(map(encoder_module, config.cams.other_encoders))
    if stage == "refine_import" and method in METHODS and METHODS[method].released:
        modules += (released_module(method),)
    return modules


def stage_sections(stage: str, config: Config) -> str:
    """The values that decide what ``stage`` writes, as one line of JSON: a change reruns it."""
    return json.dumps(STAGES[stage].watched(config), sort_keys=True)


def stage_state(stage: str, config: Config) -> str:
    """The same with a digest per key: Snakemake shows it as the reason of a rerun."""
    values = STAGES[stage].watched(config)
    return ", ".join(f"{key} {digest_json(value)[:16]}" for key, value in values.items())


def stage_code(stage: str, config: Config) -> str:
    """Digest of the code that ``stage`` runs."""
    return _code_digest(entry_modules(stage, config))


def stage_modules(stage: str, config: Config) -> dict[str, str]:
    """Digest of each module of that code, by its name."""
    return _module_digests(entry_modules(stage, config))


def stage_packages(stage: str, config: Config) -> str:
    """Versions of the packages that ``stage`` uses, for the engine's own environment."""
    versions = package_versions(_imported_packages(entry_modules(stage, config)))
    return ", ".join(f"{name} {version}" for name, version in versions.items())


# An engine asks for each job.
_code_digest = functools.cache(code_digest)
_module_digests = functools.cache(module_digests)
_imported_packages = functools.cache(imported_packages)
