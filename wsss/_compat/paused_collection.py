"""Import large packages without looking for garbage meanwhile.

What is slow: an import makes many objects and hardly any garbage, but Python's collector looks
through all of them again and again (seen with Python 3.11, torch 2.13).

mmengine (0.10) asks it to look through all of them once for each data set, too.

Remedy: it pauses, or looks seldom. Delete this when `benchmarks.starts` says the same without it.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

_USUAL = gc.get_threshold()
_RARE = 100_000
"""New objects between two looks for garbage. A stage with CLIP makes about 200,000 at its start."""


def collect_rarely() -> None:
    """From now on Python looks for garbage seldom, but never stops doing so."""
    gc.set_threshold(_RARE, *_USUAL[1:])


def collect_as_usual() -> None:
    """End `collect_rarely`; what is imported by then stays, and is never looked through."""
    if gc.get_threshold()[0] == _RARE:
        gc.freeze()
    gc.set_threshold(*_USUAL)


@contextmanager
def paused_collection() -> Iterator[None]:
    """Inside, Python collects no garbage of reference cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def without_requested_collection(module: ModuleType) -> Iterator[None]:
    """Inside, a look at all objects that a module of another package asks for is left out.

    Args:
        module: one that imports `gc` and uses nothing of it but `gc.collect`.
    """
    importer: Any = module
    importer.gc = SimpleNamespace(collect=lambda: 0)
    try:
        yield
    finally:
        importer.gc = gc
