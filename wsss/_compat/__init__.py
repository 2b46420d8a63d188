"""Remedies for packages that do not import, or not safely load, as shipped.

One module per remedy; each says what breaks, with which versions, and when it can be deleted.
"""

from __future__ import annotations

import importlib
from types import ModuleType


def import_open_clip() -> ModuleType:
    """Import ``open_clip`` with the torchvision remedy applied first.

    Returns:
        The imported ``open_clip`` module.
    """
    from wsss._compat.torchvision_ops import ensure_torchvision_imports

    ensure_torchvision_imports()
    return importlib.import_module("open_clip")
