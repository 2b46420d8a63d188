"""Import open_clip and mmsegmentation without timm, until a model needs it.

What is slow: both import timm if it is there, and timm imports all its models and torch's compiler
(``torch._dynamo``, sympy), which takes longer than torch itself (seen with timm 1.0.28). Few models
of open_clip and none of ours in mmsegmentation use it.

Remedy: timm counts as not installed while they are imported; `enable_timm` gives it to open_clip.
Delete this when timm imports its models on demand.
"""

from __future__ import annotations

import importlib
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


def enable_timm() -> None:
    """Give open_clip the names that it would have imported from timm.

    Raises:
        ImportError: timm is not installed.
    """
    timm, layers = importlib.import_module("timm"), importlib.import_module("timm.layers")
    vars(importlib.import_module("open_clip.timm_model")).update(
        timm=timm,
        RotAttentionPool2d=layers.RotAttentionPool2d,
        AbsAttentionPool2d=layers.AttentionPool2d,
        Mlp=layers.Mlp,
        to_2tuple=layers.to_2tuple,
    )
