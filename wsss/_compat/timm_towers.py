"""Give open_clip the towers of timm, which it lacks after `import_open_clip`.

What breaks: `wsss._compat.optional_packages` lets open_clip 3.3 import without timm, which takes
longer to import than torch. Its `TimmModel` then refuses to build (EVA-CLIP, SigLIP).

Remedy: import timm and open_clip's module of it once more, where such a tower is asked for. Delete
this with that module.
"""

from __future__ import annotations

import importlib

from wsss._compat import import_open_clip
from wsss._compat.torchvision_ops import import_torchvision


def import_timm_towers() -> None:
    """Let open_clip build image towers of timm; may be called any number of times.

    Raises:
        ImportError: timm is not installed.
    """
    open_clip = import_open_clip()
    adapter = importlib.import_module("open_clip.timm_model")
    if adapter.timm is not None:
        return
    import_torchvision()
    importlib.import_module("timm")
    open_clip.model.TimmModel = importlib.reload(adapter).TimmModel
