"""Let modules that a package imports, and that nothing of ours calls, be imported when called.

What is slow: mmsegmentation and mmengine import sharded trainings of torch (and with them sympy),
three parts of scipy, and a tokenizer that reads its vocabulary; torchvision imports torch's
compiler. That takes longer than torch itself (seen with onedl-mmsegmentation 1.4.2, onedl-mmengine
0.10.12, torchvision 0.28). open_clip 3.3 imports a web client, to upload models, and a tokenizer,
which reads its vocabulary as well. Most stages call none of them.

Remedy: a placeholder takes the place of such a module during the import. What is taken from it
calls the real one. Delete this when these packages import them where they use them.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


class _Placeholder(ModuleType):
    """Stands for a module; each name in it is a function that calls that of the real module."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **kwargs: Any) -> Any:
            return getattr(importlib.import_module(self.__name__), name)(*args, **kwargs)

        return call


@contextmanager
def imported_on_demand(*modules: str, **constants: Any) -> Iterator[None]:
    """Inside, imports of these modules give a placeholder, unless they are imported already.

    Args:
        modules: dotted names; what is imported from them are functions, or classes that are called.
        constants: what else is imported from them.
    """
    names = [name for name in modules if name not in sys.modules]
    for name in names:
        sys.modules[name] = _Placeholder(name)
        vars(sys.modules[name]).update(constants)
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
