"""A digest of the source code that a stage uses, so that editing it reruns the stage.

Snakemake does not see edits inside an imported package. Rules therefore carry this digest as a
parameter: it covers the entry modules of a stage and all that they import, transitively, inside
this package. Imports are read from the source with grimp; nothing is executed. `wsss.config` and
the methods' options are left out: they act on a stage through their values alone, and rules carry
those too.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import grimp

import wsss

_PACKAGE = "wsss"
_ROOT = Path(wsss.__file__).parent


def code_digest(modules: Iterable[str]) -> str:
    """Digest of the sources of ``modules`` and of everything in the package that they import.

    Args:
        modules: dotted names inside the package, e.g. ``wsss.cams.stage``.

    Returns:
        Hexadecimal sha256 over the names and bytes of the source files.

    Raises:
        ValueError: a module does not exist.
    """
    total = hashlib.sha256()
    for name in sorted(imported_modules(modules)):
        total.update(name.encode() + b"\0" + _source(name).read_bytes() + b"\0")
    return total.hexdigest()


def imported_modules(modules: Iterable[str]) -> set[str]:
    """``modules`` and every module of the package whose code runs when they are imported."""
    graph = _graph()
    pending = list(modules)
    for name in pending:
        if name not in graph.modules:
            raise ValueError(
                f"{name}: no such module in {_PACKAGE}; a stage names a wrong entry module"
            )
    found: set[str] = set()
    while pending:
        name = pending.pop()
        if name in found or _is_configuration(name):
            continue
        found.add(name)
        pending += graph.find_modules_directly_imported_by(name)
        parent = name.rpartition(".")[0]  # importing a.b.c runs a/__init__ and a/b/__init__ too
        if parent:
            pending.append(parent)
    return found


def _is_configuration(module: str) -> bool:
    return re.fullmatch(r"wsss\.config(\..*)?|wsss\.refine\.\w+\.options", module) is not None


@functools.cache
def _graph() -> grimp.ImportGraph:
    return grimp.build_graph(_PACKAGE, cache_dir=None)


def _source(module: str) -> Path:
    parts = module.split(".")[1:]
    path = _ROOT.joinpath(*parts)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
