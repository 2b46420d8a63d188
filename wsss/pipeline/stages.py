"""What each stage reads of the configuration and which modules it enters.

The workflow takes a stage's parameters from here: the values of the sections that it reads, and the
digest of the code that it runs. A stage is then given nothing but those sections, so a stage that
reads a section which is not declared here fails at once instead of missing a rerun later.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from wsss.artifacts.code_digest import code_digest
from wsss.config import Config, ConfigError, from_mapping
from wsss.refine.registry import METHODS, method_module, released_module


@dataclass(frozen=True)
class Stage:
    """The declared dependencies of a stage."""

    entry: tuple[str, ...]
    """Entry modules; the code digest covers all that they import inside the package."""
    reads: tuple[str, ...]
    """Keys of the configuration that the stage reads; `compute`, which changes no result, is not
    among them."""


STAGES: dict[str, Stage] = {
    "demo": Stage(("wsss.demo.dataset",), ()),
    "mask_tags": Stage(("wsss.score.truth.mask_tags",), ("data",)),
    "coco_masks": Stage(("wsss.score.truth.coco_masks",), ("data",)),
    "ingest": Stage(("wsss.data.ingest.stage",), ("variant", "data")),
    "cams": Stage(("wsss.cams.stage",), ("data", "clip", "cams")),
    "seeds": Stage(("wsss.masks.seeds_stage",), ("data", "cams", "seeds")),
    "refine_train": Stage(("wsss.refine.stage",), ("seed", "data", "clip", "cams", "refine")),
    "refine_import": Stage(("wsss.refine.released.importer",), ("data", "clip", "refine")),
    "refine_apply": Stage(("wsss.refine.stage",), ("data", "clip", "cams", "refine", "infer")),
    "refine_predict": Stage(
        ("wsss.refine.stage",), ("data", "clip", "cams", "refine", "infer", "masks")
    ),
    "masks": Stage(("wsss.masks.stage",), ("data", "masks")),
    "retrain": Stage(("wsss.retrain.train",), ("seed", "data", "retrain")),
    "predict": Stage(("wsss.retrain.predict",), ("data", "masks", "retrain", "predict")),
    "submission": Stage(("wsss.score.submission",), ()),
    "score": Stage(
        ("wsss.score.stage",),
        (
            *("name", "seed", "variant", "data", "cams", "seeds", "refine", "infer", "masks"),
            *("predict", "score"),
        ),
    ),
    "table": Stage(("wsss.score.tables.write",), ("name",)),
    "comparison": Stage(("wsss.score.tables.comparison",), ("name",)),
    "paper_table": Stage(("wsss.score.papers.render",), ("name",)),
    "efficiency": Stage(("wsss.score.tables.efficiency",), ("name",)),
    "pictures": Stage(
        ("wsss.score.figures.contact_sheet", "wsss.score.figures.curves"),
        ("name", "data", "pictures"),
    ),
}


def entry_modules(stage: str, config: Config) -> tuple[str, ...]:
    """The stage's entry modules, with those that the configuration chooses."""
    modules = STAGES[stage].entry
    method = config.refine.method
    if stage.startswith("refine"):
        modules += (method_module(method),)
    if stage == "refine_import" and method in METHODS and METHODS[method].released:
        modules += (released_module(method),)
    return modules


def stage_sections(stage: str, config: Config) -> str:
    """The values that ``stage`` reads, as one line of JSON."""
    values: dict[str, Any] = config.model_dump(mode="json", include=set(STAGES[stage].reads))
    if "refine" in values:  # the options of the other methods change nothing
        for method in set(METHODS) - {config.refine.method}:
            del values["refine"][method]
    return json.dumps(values, sort_keys=True)


def stage_code(stage: str, config: Config) -> str:
    """Digest of the code that ``stage`` runs."""
    return code_digest(entry_modules(stage, config))


def config_of_sections(stage: str, text: str, **compute: Any) -> Config:
    """A configuration that holds nothing but what ``stage`` declares.

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
    if set(values) != set(STAGES[stage].reads):
        raise ConfigError(
            f"--sections of {stage}: found {sorted(values)}, expected {sorted(STAGES[stage].reads)}"
        )
    return restrict(
        stage, from_mapping(values | {"compute": compute}, where="--sections", partial=True)
    )


def restrict(stage: str, config: Config) -> Config:
    """A copy of ``config`` without the sections that ``stage`` does not declare."""
    bare = config.model_copy()
    for name in set(Config.model_fields) - set(STAGES[stage].reads) - {"compute"}:
        del bare.__dict__[name]
    return bare
