"""Build models without memory, on torch's device ``meta``, and without torch's compiler.

What is slow: on that device torch does random starts, and products with a number, in Python. That
imports its compiler (``torch._dynamo`` and sympy) first, which takes a third of the time in which a
stage with CLIP starts (seen with torch 2.13).

Remedy: what changes values and no shape is left out. Delete this when torch does it without that
import.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_PRODUCTS = frozenset({"mul", "__mul__", "__rmul__"})


class _WithoutValues(TorchFunctionMode):
    """Leaves out what changes values and no shape: random starts, products with a number."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        tensors = [value for value in (*args, *named.values()) if isinstance(value, Tensor)]
        name = getattr(func, "__name__", "")
        in_place = name.endswith("_") and not name.endswith("__")
        if func is torch.randn:
            return torch.empty(*args, **named)
        if len(tensors) == 1 and tensors[0].is_meta and (in_place or name in _PRODUCTS):
            return tensors[0]
        return func(*args, **named)


@contextmanager
def outlines() -> Iterator[None]:
    """Modules that are built inside have shapes and no values, and take no memory."""
    with torch.device("meta"), _WithoutValues():
        yield
