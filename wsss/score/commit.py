"""The commit of the project that runs, for tables; no key and no digest depends on it."""

from __future__ import annotations

import functools
from pathlib import Path

import wsss
from wsss.compute.machine import output_of

_ROOT = Path(wsss.__file__).parents[1]
_SECONDS = 20


@functools.cache
def project_commit() -> str | None:
    """The commit that is checked out, with a ``+`` where sources differ from it.

    None where the package does not lie in a git work tree of its own (installed, or a copy).
    """
    top = _git("rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != _ROOT.resolve():
        return None
    commit = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--", "wsss")
    return commit + "+" * bool(changed) if commit else None


def _git(*arguments: str) -> str:
    return output_of(["git", "-C", str(_ROOT), *arguments], _SECONDS).strip()
