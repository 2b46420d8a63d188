"""Import large packages without looking for garbage meanwhile.

What is slow: an import makes many objects and hardly any garbage, but Python's collector looks
through all of them again and again (seen with Python 3.11, torch 2.13).

Remedy: it pauses, or looks seldom. Delete this when `benchmarks.starts` says the same without it.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_USUAL = gc.get_threshold()
_RARE = 100_000
"""New objects between two looks for garbage. A stage with CLIP makes about 200,000 at its start."""


def collect_rarely() -> None:
    """From now on Python looks for garbage seldom, but never stops doing so."""
    gc.set_threshold(_RARE, *_USUAL[1:])


def collect_as_usual() -> None:
    """End `collect_rarely`."""
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
