"""The one list of methods. A new one is a folder ``wsss/refine/<method>/`` and a line here.

Only the options are imported. The code of a method is imported by name at run time, so that the
code digest of a stage covers the configured method and not the others.
"""

from __future__ import annotations

from wsss.config.cams import CamsConfig
from wsss.config.clip import encoder_module
from wsss.config.method import MethodOptions
from wsss.refine.excel.options import ExcelOptions
from wsss.refine.weakclip.options import WeakClipOptions
from wsss.refine.weclip.options import WeClipOptions
from wsss.refine.weclip_plus.options import WeClipPlusOptions

METHODS: dict[str, type[MethodOptions]] = {
    "weclip": WeClipOptions,
    "weakclip": WeakClipOptions,
    "excel": ExcelOptions,
    "weclip_plus": WeClipPlusOptions,
}
"""Options and facts by the name of the folder, in the order of the papers."""


def method_module(method: str) -> str:
    """Dotted module of a method's code."""
    return f"wsss.refine.{method}.method"


def method_encoders(method: str, cams: CamsConfig) -> tuple[str, ...]:
    """Frozen encoders besides CLIP that a method reads: its own, and that of the affinity."""
    if method not in METHODS:
        return ()
    options = METHODS[method]
    others = ("dino",) if options.refines_cams and cams.affinity.uses_dino else ()
    return tuple(dict.fromkeys((*options.encoders, *others)))


def method_modules(method: str, cams: CamsConfig) -> tuple[str, ...]:
    """Dotted modules of a method's code and of the encoders besides CLIP that it reads."""
    return method_module(method), *map(encoder_module, method_encoders(method, cams))


def released_module(method: str) -> str:
    """Dotted module that reads what the authors of a method released."""
    return f"wsss.refine.{method}.released"
