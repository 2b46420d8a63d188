"""Let torchvision import, with any build of torch and without torch's compiler.

What breaks: torchvision 0.28 from PyPI is compiled against the CUDA build of torch 2.13. With a
CPU build its library ``_C.so`` cannot be loaded, and ``import torchvision`` then fails with
``operator torchvision::nms does not exist``, because a Python file registers a shape function for
an operator that was never declared. open_clip and timm import torchvision, so they fail as well.

Remedy: declare the two operators' signatures when the library cannot be loaded. None of our code
calls them; a call would fail with torch's own "no kernel" error. Where the builds match, this does
nothing. Delete it when PyPI carries a torchvision build for CPU torch.

What is slow: ``torchvision.ops`` imports torch's compiler (``torch._dynamo`` and sympy), which
takes longer than torch itself, for one function that no stage calls.

Remedy: import it with a placeholder for that function. The placeholder calls the real one.
Delete this when ``torchvision.ops.roi_align`` imports the compiler where it uses it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import torch

from wsss._compat.on_demand import imported_on_demand

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
# A torch.library.Library drops its declarations when it is collected.
_keep: list[torch.library.Library] = []
_COMPILER = "torch._dynamo.utils"


def import_torchvision() -> None:
    """Import torchvision without torch's compiler; may be called any number of times."""
    ensure_torchvision_imports()
    if _COMPILER in sys.modules or "torchvision.ops" in sys.modules:
        return
    with imported_on_demand(_COMPILER):
        importlib.import_module("torchvision.ops")


def ensure_torchvision_imports() -> None:
    """Make ``import torchvision`` work; may be called any number of times."""
    if _keep or _declared():
        return
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return  # importing it will raise the honest ModuleNotFoundError
    library = Path(next(iter(spec.submodule_search_locations))) / "_C.so"
    try:
        torch.ops.load_library(str(library))
    except OSError:
        declarations = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            declarations.define(schema)
        _keep.append(declarations)


def _declared() -> bool:
    return hasattr(torch.ops.torchvision, "nms")
