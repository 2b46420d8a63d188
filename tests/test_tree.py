"""The shape of the package: small modules and folders, no import circle, plain names."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

import wsss
from tests.medium import medium_tests

PACKAGE = Path(wsss.__file__).parent
ROOT = PACKAGE.parent
MODULES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES, MOST_MODULES = 300, 20
PRIVATE_WORDS = frozenset(
    {"asked", "found", "kept", "known", "made", "owner", "taken", "told", "wanted"}
)
"""They say what happened to a value, not what it is."""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_fits_on_a_few_screens(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


def test_a_folder_can_be_seen_at_a_glance() -> None:
    for folder in {path.parent for path in MODULES}:
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= MOST_MODULES, folder


def test_no_module_imports_itself_through_others() -> None:
    graph = grimp.build_graph("wsss", cache_dir=None)
    graph.remove_module("wsss")  # it imports its public names for type checkers alone
    pending = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    while True:  # take away modules whose imports are gone, until nothing changes
        free = {name for name, imports in pending.items() if not imports}
        if not free:
            break
        pending = {n: imports - free for n, imports in pending.items() if n not in free}
    assert not pending


def test_the_medium_tests_are_there() -> None:
    """Those of the list that `make check` leaves out; `make medium` writes it again."""
    sources = [path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py")]
    functions = {name for text in sources for name in re.findall(r"def (test_\w+)\(", text)}
    for entry in medium_tests():
        file, _, name = entry.partition("::")
        assert (ROOT / file).is_file(), entry
        assert name.rpartition("::")[2] in functions, entry


def test_names_say_what_a_value_is() -> None:
    private = [
        f"{path.relative_to(PACKAGE)}:{line}: {name}"
        for path in MODULES
        for line, name in _assigned(ast.parse(path.read_text()))
        if name in PRIVATE_WORDS
    ]
    assert not private, "\n".join(
        [*private, f"say what the value is, e.g. `weights`; none is called {sorted(PRIVATE_WORDS)}"]
    )


def test_shapes_in_signatures_are_checked_where_there_are_some() -> None:
    """By the rooms that the Makefile names."""
    (line,) = re.findall(r"^SHAPED := (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    rooms = tuple(f"{room.replace('.', '/')}/" for room in line.split(","))
    shaped = [path for path in MODULES if "from jaxtyping import" in path.read_text()]
    names = {f"{path.relative_to(ROOT).with_suffix('')}/" for path in shaped}
    assert len(names) > 60
    assert not {name for name in names if not name.startswith(rooms)}
    assert all(any(name.startswith(room) for name in names) for room in rooms)


def test_text_files_are_utf8_whatever_the_locale_is() -> None:
    programs = [path for name in ("tools", "benchmarks") for path in (ROOT / name).rglob("*.py")]
    unsaid = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in (*MODULES, *programs)
        for line in _texts_without_encoding(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not unsaid, "\n".join(unsaid)


def _texts_without_encoding(tree: ast.AST) -> Iterator[int]:
    """Lines where a text file is opened, read or written in the encoding of the locale."""
    positions = {"read_text": 0, "write_text": 1}  # of the encoding among the arguments
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or any(word.arg == "encoding" for word in node.keywords):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else None
        if name in positions:
            if len(node.args) <= positions[name]:
                yield node.lineno
        elif isinstance(node.func, ast.Name) and node.func.id == "open":
            modes = [*node.args[1:2], *(word.value for word in node.keywords if word.arg == "mode")]
            if not any(isinstance(mode, ast.Constant) and "b" in str(mode.value) for mode in modes):
                yield node.lineno


def test_a_gpu_runs_every_golden_test_that_takes_a_device() -> None:
    """The Makefile names their modules."""
    (line,) = re.findall(r"^GOLDEN_ON_GPU := .*, (.*)\)$", (ROOT / "Makefile").read_text(), re.M)
    takes_device = [
        path.name.removeprefix("test_")
        for path in sorted((ROOT / "tests/golden").glob("test_*.py"))
        if any(
            argument.arg == "device"
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.FunctionDef)
            for argument in node.args.args
        )
    ]
    assert line.split() == takes_device


def _assigned(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Names that are bound as variables or parameters, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
