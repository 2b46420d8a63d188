"""The registry lists the methods, and keeps them out of each other's code digest."""

import importlib

import pytest

from tests.refine.every_method import MethodTests
from wsss.artifacts.code_digest import imported_modules
from wsss.errors import WsssError
from wsss.refine.base import Refiner
from wsss.refine.load import refiner_class
from wsss.refine.registry import METHODS, method_module


@pytest.mark.parametrize("method", METHODS)
def test_every_method_defines_one_refiner(method: str) -> None:
    assert issubclass(refiner_class(method), Refiner)


def test_two_refiners_of_a_method_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(method_module("weclip"))
    second = type("Second", (Refiner,), {"__module__": module.__name__})
    monkeypatch.setattr(module, "Second", second, raising=False)
    with pytest.raises(WsssError, match=r"method\.py: .* defines: WeClip, Second; expected one"):
        refiner_class("weclip")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_the_tests_of_all(method: str) -> None:
    module = importlib.import_module(f"tests.refine.{method}.test_{method}")
    assert any(test.__module__ == module.__name__ for test in MethodTests.__subclasses__())


@pytest.mark.parametrize("method", METHODS)
def test_options_that_count_blocks_are_compared_with_the_encoder(method: str) -> None:
    options = METHODS[method]
    counts = [name for name in options.model_fields if name.endswith("_blocks")]
    assert set(options(**dict.fromkeys(counts, 40)).encoder_blocks) >= set(counts), (
        "`encoder_blocks` of its options must name them, or `wsss config check` passes any number"
    )


def test_the_stage_itself_imports_no_method() -> None:
    modules = imported_modules(["wsss.refine.stage"])
    assert not {method_module(method) for method in METHODS} & modules
