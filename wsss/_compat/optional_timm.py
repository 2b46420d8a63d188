"""Import open_clip and mmsegmentation without timm.

What is slow: both import timm if it is there, and timm imports all its models and torch's compiler
(``torch._dynamo``, sympy), which takes longer than torch itself (seen with timm 1.0.28). No model
that we take from them uses it: open_clip's towers of timm are refused (`wsss.clip.model_config`).

Remedy: timm counts as not installed while they are imported. Delete this when timm imports its
models on demand.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_timm() -> Iterator[None]:
    """Inside, ``import timm`` raises ImportError, unless it is imported already."""
    if "timm" in sys.modules:
        yield
        return
    sys.modules["timm"] = None  # type: ignore[assignment]  # what marks a package as missing
    try:
        yield
    finally:
        del sys.modules["timm"]
