"""The registry lists the methods, and keeps them out of each other's code digest."""

import pytest

from wsss.artifacts.code_digest import imported_modules
from wsss.refine.base import Refiner
from wsss.refine.load import refiner_class
from wsss.refine.registry import METHODS, method_module


@pytest.mark.parametrize("method", METHODS)
def test_every_method_defines_one_refiner(method: str) -> None:
    assert issubclass(refiner_class(method), Refiner)


def test_the_stage_itself_imports_no_method() -> None:
    modules = imported_modules(["wsss.refine.stage"])
    assert not {method_module(method) for method in METHODS} & modules
