"""Typed configuration: one model per section, unknown keys are errors, the schema is generated.

The names below are imported when they are first used, so that a method's options may import
`wsss.config.method` while `wsss.config.refine` collects them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsss.config.load import ConfigError, expand_path, from_mapping, load_config
    from wsss.config.model import Config

__all__ = ["Config", "ConfigError", "expand_path", "from_mapping", "load_config"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(
        importlib.import_module(f"{__name__}.{'model' if name == 'Config' else 'load'}"), name
    )
