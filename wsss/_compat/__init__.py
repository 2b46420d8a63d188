"""Remedies for packages that do not import, or not safely load, as shipped.

One module per remedy; each says what breaks, with which versions, and when it can be deleted.
"""

from __future__ import annotations

import importlib
from types import ModuleType

_CALLED_BY_FEW = ("open_clip.push_to_hf_hub", "open_clip.tokenizer")
_CONTEXT_LENGTH = 77  # of open_clip's tokenizer


def import_open_clip() -> ModuleType:
    """Import ``open_clip`` with the remedies for torchvision and slow optional packages.

    Returns:
        The imported ``open_clip`` module, without its towers of other packages.
    """
    from wsss._compat.on_demand import imported_on_demand
    from wsss._compat.optional_packages import without_optional_packages
    from wsss._compat.paused_collection import paused_collection

    with paused_collection():
        from wsss._compat.torchvision_ops import import_torchvision

        import_torchvision()
        with (
            without_optional_packages(),
            imported_on_demand(*_CALLED_BY_FEW, DEFAULT_CONTEXT_LENGTH=_CONTEXT_LENGTH),
        ):
            return importlib.import_module("open_clip")


def import_timm() -> ModuleType:
    """Import ``timm`` with the remedy for torchvision.

    It takes longer than torch, since it imports all its models: call this where it is needed.
    """
    from wsss._compat.torchvision_ops import import_torchvision

    import_torchvision()
    return importlib.import_module("timm")
