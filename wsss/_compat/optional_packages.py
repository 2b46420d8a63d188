"""Import open_clip and mmsegmentation without optional packages that are slow to import.

What is slow: both import timm if it is there, and open_clip imports transformers as well. timm
imports all its models and torch's compiler (``torch._dynamo``, sympy), which takes longer than
torch itself (seen with timm 1.0.31, transformers 5.24). Few models that we take from them use
either; open_clip's towers of timm are brought in where they do (`wsss._compat.timm_towers`).
open_clip's tokenizers import transformers where they use it. mmengine imports torch's sharded
optimizer if it is there, which takes as long as torch.

Remedy: all three count as not installed during the import. Delete this when they are imported
on demand.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_SLOW = ("timm", "transformers", "torch.distributed.optim")


@contextmanager
def without_optional_packages() -> Iterator[None]:
    """Inside, importing these packages raises ImportError, unless they are imported already."""
    missing = [name for name in _SLOW if name not in sys.modules]
    for name in missing:
        sys.modules[name] = None  # type: ignore[assignment]  # what marks a package as missing
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]
