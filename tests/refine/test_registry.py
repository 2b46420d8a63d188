"""The registry finds refiners by name, and keeps them out of each other's code digest."""

from __future__ import annotations

from typing import get_args

import pytest

from wsss.artifacts.code_digest import imported_modules
from wsss.config.refine import RefineConfig
from wsss.refine.base import find_refiner
from wsss.refine.registry import method_module

METHODS = get_args(RefineConfig.model_fields["method"].annotation)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_the_configuration_has_a_refiner(method: str) -> None:
    refiner = find_refiner(method)
    assert "refine" in refiner.sections
    assert set(refiner.sections) <= {
        "data",
        "clip",
        "cams",
        "refine",
        "infer",
    }  # what refine_apply is given
    assert callable(refiner.train)
    assert callable(refiner.apply)


def test_the_stage_itself_imports_no_refiner() -> None:
    modules = {f"wsss.refine.{method}.method" for method in METHODS}
    assert not modules & imported_modules(["wsss.refine.stage"])
    assert "wsss.refine.identity" in imported_modules([method_module("none")])
