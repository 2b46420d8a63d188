"""Silence a warning of open_clip that is not true here.

What breaks: `open_clip.create_model` without a tag warns that the model is "initialized randomly"
(open_clip_torch 3.3), also where the caller loads a weight file into it afterwards.

Remedy: drop that one message meanwhile. Delete this when open_clip builds a model without it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def without_random_start() -> Iterator[None]:
    """For building a model whose weights follow."""

    def is_true(record: logging.LogRecord) -> bool:
        return "initialized randomly" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(is_true)
    try:
        yield
    finally:
        root.removeFilter(is_true)
