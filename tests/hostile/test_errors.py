"""All error classes of the project share a base, which the command line shows as one message."""

import ast
from pathlib import Path

import wsss

ROOT = Path(wsss.__file__).parent


def test_every_error_class_has_the_common_base() -> None:
    bases_of: dict[str, list[str]] = {}
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
                bases_of[node.name] = [ast.unparse(base) for base in node.bases]
    assert len(bases_of) >= 14
    derived = {"WsssError"}
    while grown := {name for name, bases in bases_of.items() if derived & set(bases)} - derived:
        derived |= grown
    assert set(bases_of) - derived == set()
