"""Each stage's function takes what the stage declares, and nothing else of the configuration."""

import importlib
import inspect
import json
from collections.abc import Callable
from typing import Any, get_type_hints, is_typeddict

import pytest

from wsss.artifacts.stage import STAGES
from wsss.config.load import from_mapping
from wsss.config.model import Config
from wsss.pipeline.job import job_of

FUNCTIONS = {
    "ingest": "wsss.data.ingest.stage:ingest",
    "cams": "wsss.cams.stage:run",
    "seeds": "wsss.masks.seeds_stage:run",
    "refine_train": "wsss.refine.stage:train",
    "refine_import": "wsss.refine.released.importer:import_checkpoint",
    "refine_apply": "wsss.refine.stage:apply",
    "refine_predict": "wsss.refine.predict:predict",
    "truth_masks": "wsss.score.truth.training_masks:run",
    "masks": "wsss.masks.stage:run",
    "retrain": "wsss.retrain.train:train",
    "predict": "wsss.retrain.predict:run",
}


@pytest.mark.parametrize("stage", FUNCTIONS)
def test_a_stage_takes_the_sections_that_it_declares(stage: str) -> None:
    module, _, name = FUNCTIONS[stage].partition(":")
    assert module in STAGES[stage].modules
    function = getattr(importlib.import_module(module), name)
    declared = {key.rpartition(".")[2] for key in STAGES[stage].reads} | {"compute"}
    assert declared <= _keywords(function)
    assert not (_keywords(function) - declared) & set(Config.model_fields)
    assert Config not in get_type_hints(function).values()


def _keywords(function: Callable[..., Any]) -> set[str]:
    """Names of the keyword-only arguments, those of a typed `**sections` among them."""
    hints, names = get_type_hints(function), set()
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY:
            names.add(name)
        elif parameter.kind is parameter.VAR_KEYWORD:
            (sections,) = getattr(hints[name], "__args__", [hints[name]])
            assert is_typeddict(sections)
            names |= set(sections.__annotations__)
    return names


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_other_sections_do_not_reach_a_stage(stage: str) -> None:
    """The text that the workflow sends has no other value, whatever the configuration says."""
    config = from_mapping({"refine": {"method": "excel"}, "clip": {"long_side": 999}})
    values = json.loads(job_of(stage, config).text())["sections"]
    sections = {key.partition(".")[0] for key in STAGES[stage].reads}
    assert set(values) == sections
    for key in STAGES[stage].reads:
        section, _, name = key.partition(".")
        assert not name or name in values[section]
    arguments = STAGES[stage].arguments(job_of(stage, config).config(stage))
    assert set(arguments) == {key.rpartition(".")[2] for key in STAGES[stage].reads} | {"compute"}


@pytest.mark.parametrize(
    ("stage", "unused"),
    [
        ("refine_predict", {"infer": {"crf": False}}),
        ("predict", {"predict": {"crf": False}}),
        ("predict", {"predict": {"crf_settings": {"iterations": 3}}}),
    ],
)
def test_a_crf_that_does_not_run_reruns_nothing(stage: str, unused: dict[str, Any]) -> None:
    def watched(sections: dict[str, Any], iterations: int) -> dict[str, Any]:
        crf = {"masks": {"crf": {"iterations": iterations}}}
        return STAGES[stage].watched(from_mapping(sections | crf))

    assert watched({}, 5) != watched({}, 6)
    assert watched(unused, 5) == watched(unused, 6)
