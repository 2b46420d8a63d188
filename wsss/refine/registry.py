"""Find a refiner by its name, without importing the others.

The import goes by name at run time, so that the code digest of the stage does not cover every
refiner: `entry_modules` adds the configured one, and editing it reruns only chains that use it.
"""

from __future__ import annotations

import importlib

from wsss.config.model import Config
from wsss.refine.base import Refiner

RELEASED = frozenset({"weakclip", "excel"})
"""Methods whose authors released checkpoints."""


def entry_modules(config: Config) -> list[str]:
    """Dotted modules that the configured refiner enters, for the code digest."""
    return [_module(config.refine.method)]


def import_modules(config: Config) -> list[str]:
    """Dotted modules that import what the authors of the configured refiner released."""
    return [authors_module(config.refine.method)] if config.refine.method in RELEASED else []


def authors_module(method: str) -> str:
    """Dotted module that knows the release of a method."""
    return f"wsss.refine.{method}.released"


def find_refiner(method: str) -> Refiner:
    """The refiner of that name."""
    refiner: Refiner = importlib.import_module(_module(method)).refiner
    return refiner


def _module(method: str) -> str:
    return "wsss.refine.identity" if method == "none" else f"wsss.refine.{method}.method"
