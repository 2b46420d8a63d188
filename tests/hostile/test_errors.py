"""Every error of the project's own has one base, which the command line shows as one message."""

from __future__ import annotations

import ast
from pathlib import Path

import wsss

ROOT = Path(wsss.__file__).parent


def test_every_error_class_has_the_common_base() -> None:
    found: dict[str, list[str]] = {}
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
                found[node.name] = [ast.unparse(base) for base in node.bases]
    assert len(found) >= 14
    known = {"WsssError"}
    while grown := {name for name, bases in found.items() if known & set(bases)} - known:
        known |= grown
    assert set(found) - known == set()
