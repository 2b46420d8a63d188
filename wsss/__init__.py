"""Weakly supervised semantic segmentation: from image-level tags to masks and a segmenter.

The public names are imported when they are first used, so that ``import wsss`` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsss.api.cams import grad_cam, patch_text_cams, propagate
    from wsss.api.clip import load_clip
    from wsss.api.inputs import read_image
    from wsss.api.labels import dense_crf, pixel_adaptive_refinement, pseudo_mask
    from wsss.api.models import load_refiner, load_segmenter
    from wsss.artifacts.shard import Shard
    from wsss.config.load import load_config
    from wsss.refine.base import Refiner
    from wsss.score.metrics.confusion import Confusion

__version__ = "0.2.0"

__all__ = [
    "Confusion", "Refiner", "Shard", "__version__", "dense_crf", "grad_cam", "load_clip",
    "load_config", "load_refiner", "load_segmenter", "patch_text_cams", "pixel_adaptive_refinement",
    "propagate", "pseudo_mask", "read_image",
]  # fmt: skip

_MODULES = {
    "Confusion": "score.metrics.confusion",
    "Refiner": "refine.base",
    "Shard": "artifacts.shard",
    "dense_crf": "api.labels",
    "grad_cam": "api.cams",
    "load_clip": "api.clip",
    "load_config": "config.load",
    "load_refiner": "api.models",
    "load_segmenter": "api.models",
    "patch_text_cams": "api.cams",
    "pixel_adaptive_refinement": "api.labels",
    "propagate": "api.cams",
    "pseudo_mask": "api.labels",
    "read_image": "api.inputs",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'wsss' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"wsss.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return __all__
