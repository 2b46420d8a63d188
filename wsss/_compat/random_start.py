"""Build a model whose weights follow without drawing random ones first.

What is slow: open_clip's models draw numbers for all their weights, also where a file replaces
them: half a second for ViT-B/16 (torch 2.13).

What breaks: `open_clip.create_model` without a tag warns that the model is "initialized randomly"
(open_clip_torch 3.3), also where the caller loads a weight file into it afterwards.

Remedy: draw none, and drop that message. Delete this when open_clip builds a model without them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_RANDOM = frozenset({"normal_", "uniform_", "kaiming_normal_", "kaiming_uniform_"})


class _NothingRandom(TorchFunctionMode):
    """Leaves random numbers out: a tensor that would get some holds whatever its memory held."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if func is torch.randn:
            return torch.empty(*args, **named)
        if getattr(func, "__name__", "") in _RANDOM:
            return next(value for value in (*args, *named.values()) if isinstance(value, Tensor))
        return func(*args, **named)


def _says_something_true(record: logging.LogRecord) -> bool:
    return "initialized randomly" not in record.getMessage()


@contextlib.contextmanager
def without_random_start() -> Iterator[None]:
    """For building a model all of whose weights are loaded afterwards."""
    root = logging.getLogger()
    root.addFilter(_says_something_true)
    try:
        with _NothingRandom():
            yield
    finally:
        root.removeFilter(_says_something_true)
