"""Import large packages without looking for garbage meanwhile.

What is slow: an import makes many objects and no garbage, but Python's collector looks through all
of them again and again, for a tenth of the time that torch and open_clip take (seen with Python
3.11, torch 2.13).

Remedy: it pauses. Delete this when an import of torch costs no more with it (Python 3.14 may).
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


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
