"""The code digest of each stage: what it covers, and what it excludes.

Each test edits a copy of one module and asks every stage for its digest. What a stage uses is
worked out here from the import statements, without the graph that the digest itself is made from.
"""

import ast
import functools
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

import wsss
from wsss.artifacts import code_digest as digests
from wsss.artifacts.code_digest import (
    code_digest,
    imported_packages,
    module_digests,
    source_digest,
)
from wsss.artifacts.provenance import DISTRIBUTIONS
from wsss.artifacts.stage import STAGES
from wsss.config.load import from_mapping
from wsss.pipeline.stages import entry_modules

PACKAGE = Path(wsss.__file__).parent
MODULES = {
    ".".join(("wsss", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
SCIENCE = (
    *(
        "wsss._compat",
        "wsss.cams",
        "wsss.clip",
        "wsss.data",
        "wsss.demo",
        "wsss.dino",
        "wsss.labels",
    ),
    *("wsss.masks", "wsss.refine", "wsss.retrain", "wsss.score"),
)
PLUMBING = ("wsss.artifacts.", "wsss.cli.", "wsss.compute.", "wsss.errors", "wsss.pipeline.")
REGISTRY = "wsss.refine.registry"
TABLES = {"table", "comparison", "paper_table", "efficiency", "page", "charts"}
METHODS = ("weclip", "weakclip", "excel", "weclip_plus")


@functools.cache
def imports(module: str) -> frozenset[str]:
    """Modules of the package that a module names in its import statements."""
    if module == "wsss":  # for type checkers alone
        return frozenset()
    names: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    parents = {module.rpartition(".")[0]}
    return frozenset((names | parents) & MODULES.keys())


@functools.cache
def uses(stage: str, method: str) -> frozenset[str]:
    """Modules that a stage runs; a stage that runs one refiner does not use all that are listed."""
    pending = list(entries(stage, method))
    reached: set[str] = set()
    while pending:
        module = pending.pop()
        if module == REGISTRY and any(n.startswith("wsss.refine.") for n in entries(stage, method)):
            continue
        if module not in reached:
            reached.add(module)
            pending += imports(module)
    return frozenset(reached)


@functools.cache
def entries(stage: str, method: str) -> tuple[str, ...]:
    return entry_modules(stage, from_mapping({"refine": {"method": method}}))


@functools.cache
def digest(stage: str, method: str) -> str:
    return code_digest(entries(stage, method))


@functools.cache
def covered(stage: str, method: str) -> frozenset[str]:
    """The modules whose digests make that of the stage."""
    return frozenset(module_digests(entries(stage, method)))


def chains() -> Iterator[tuple[str, str]]:
    for stage in STAGES:
        for method in METHODS if stage.startswith("refine") else ("none",):
            yield stage, method


@contextmanager
def edited(texts: Mapping[str, str], folder: Path) -> Iterator[None]:
    """Other texts in place of those of some modules, for the digests."""
    source, paths = digests.source_file, {}
    for module, text in texts.items():
        paths[module] = folder / f"{len(list(folder.iterdir()))}.py"  # digests are cached by path
        paths[module].write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digests, "source_file", lambda name: paths.get(name) or source(name))
        yield


def changed() -> set[tuple[str, str]]:
    """Stages, with the refiner's method, whose digest is another now."""
    return {
        (stage, method)
        for stage, method in chains()
        if code_digest(entries(stage, method)) != digest(stage, method)
    }


@pytest.fixture(autouse=True, scope="module")
def _digests_of_the_sources() -> None:
    for stage, method in chains():
        digest(stage, method)


@pytest.mark.slow
def test_an_edit_of_code_reaches_the_stages_that_use_it_and_no_other(tmp_path: Path) -> None:
    """Every module is edited at once: the digest of each tells which stages it reaches."""
    science = {name for name in MODULES if name.startswith(SCIENCE)}
    assert len(science) > 150
    before = {chain: module_digests(entries(*chain)) for chain in chains()}
    with edited({module: _with_code(module) for module in science}, tmp_path):
        for chain, digests_before in before.items():
            after = module_digests(entries(*chain))
            assert after.keys() == digests_before.keys()
            reached = {module for module in after if after[module] != digests_before[module]}
            assert reached == science & uses(*chain), chain
            assert code_digest(entries(*chain)) != digest(*chain)


def test_one_module_is_enough_for_another_digest(tmp_path: Path) -> None:
    module = "wsss.cams.boxes"
    with edited({module: _with_code(module)}, tmp_path):
        assert changed() == {chain for chain in chains() if module in uses(*chain)}


def test_a_source_is_parsed_once_per_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = []
    parse = ast.parse
    monkeypatch.setattr(ast, "parse", lambda source: parsed.append(source) or parse(source))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = tmp_path / "module.py"
    monkeypatch.setattr(digests, "source_file", lambda module: path)
    path.write_text("import numpy\nX = 1\n")
    first = source_digest("wsss.some")
    assert source_digest("wsss.some") == first
    assert digests._source_facts("wsss.some", path)[1] == {"numpy"}
    assert len(parsed) == 1
    assert source_digest("wsss.config.some") == first  # by the rules of another room
    assert len(parsed) == 2

    state = path.stat()
    path.write_text("import numpy\nX = 2\n")  # of the same size, and as old
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    second = source_digest("wsss.some")
    assert second != first
    (cache,) = (tmp_path / "__pycache__").iterdir()
    for content in (b"", b"\xff", cache.read_bytes()[:30]):
        cache.write_bytes(content)
        assert source_digest("wsss.some") == second
    assert len(parsed) == 6

    cache.unlink()
    cache.parent.rmdir()
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert source_digest("wsss.some") == second
    assert not cache.exists()
    cache.parent.touch()  # what cannot be written is done without
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert source_digest("wsss.some") == second


@pytest.mark.slow
def test_comments_docstrings_and_formatting_reach_no_stage(tmp_path: Path) -> None:
    texts = {}
    for module, path in MODULES.items():
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, _DOCUMENTED) and ast.get_docstring(node) is not None:
                node.body[0] = ast.parse("'Another docstring.'").body[0]
        # other quotes, line breaks and parentheses
        texts[module] = "# a comment\n\n\n" + ast.unparse(tree)
    with edited(texts, tmp_path):
        assert not changed()


_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def test_plumbing_reaches_no_stage(tmp_path: Path) -> None:
    names = ("seeding", "distributed", "threads", "precision")
    numbers = {f"wsss.compute.{name}" for name in names}
    plumbing = [n for n in MODULES if n.startswith(PLUMBING) and n not in numbers]
    assert len(plumbing) > 30
    with edited({module: _with_code(module) for module in plumbing}, tmp_path):
        assert not changed()


def test_the_code_of_random_numbers_reaches_the_trainings(tmp_path: Path) -> None:
    with edited({"wsss.compute.seeding": _with_code("wsss.compute.seeding")}, tmp_path):
        trainings = {("retrain", "none"), ("refine_train", "weclip"), ("refine_train", "excel")}
        assert trainings <= changed()


def test_logic_of_the_configuration_reaches_the_stages_that_call_it(tmp_path: Path) -> None:
    """Every property and method of a section: with its result turned round, its stages rerun."""
    tried = 0
    for module in (n for n in MODULES if n.startswith("wsss.config.") or n.endswith(".options")):
        before, tree = source_digest(module), ast.parse(MODULES[module].read_text())
        for section in (node for node in tree.body if isinstance(node, ast.ClassDef)):
            if any(isinstance(base, ast.Name) and base.id == "Protocol" for base in section.bases):
                continue  # never run
            for function in (n for n in section.body if isinstance(n, ast.FunctionDef)):
                if function.name == "cross_checks":  # refuses configurations before stages run
                    continue
                callers = {chain for chain in chains() if _mentions(chain, function.name)}
                body, function.body = function.body, ast.parse("return not None").body
                with edited({module: ast.unparse(tree)}, tmp_path):
                    assert source_digest(module) != before, f"{section.name}.{function.name}"
                function.body = body
                for chain in callers:  # of several properties of one name, that of its section
                    owners = covered(*chain) & _owners(function.name)
                    assert owners, f"{chain}: {section.name}.{function.name}"
                tried += bool(callers)
    assert tried


def test_the_manifest_depends_on_no_section_of_a_later_stage() -> None:
    sections = {f"wsss.config.{name}" for name in ("cams", "infer", "labels", "refine", "retrain")}
    assert sections <= MODULES.keys()
    assert not sections & uses("ingest", "none")


def _with_code(module: str) -> str:
    return MODULES[module].read_text() + "\nEDITED = 1\n"


def _mentions(chain: tuple[str, str], name: str) -> bool:
    """Whether code that a stage runs, outside the configuration, uses an attribute of that name."""
    rooms = [m for m in uses(*chain) if m.startswith(SCIENCE) and not m.endswith(".options")]
    return any(name in _attributes(module) for module in rooms)


@functools.cache
def _owners(name: str) -> frozenset[str]:
    """Modules of sections with a function of that name."""
    owners = (n for n in MODULES if n.startswith("wsss.config.") or n.endswith(".options"))
    return frozenset(n for n in owners if f"def {name}(" in MODULES[n].read_text())


@functools.cache
def _attributes(module: str) -> frozenset[str]:
    nodes = ast.walk(ast.parse(MODULES[module].read_text()))
    return frozenset(node.attr for node in nodes if isinstance(node, ast.Attribute))


def test_the_title_of_a_refiner_reaches_the_tables(tmp_path: Path) -> None:
    module = "wsss.refine.weclip.options"
    text = MODULES[module].read_text()
    renamed = text.replace('"WeCLIP"', '"Another title"', 1)
    assert renamed != text
    with edited({module: renamed}, tmp_path):
        assert {("table", "none"), ("comparison", "none"), ("paper_table", "none")} <= changed()


def test_another_method_reaches_no_cams_no_refiner_and_no_segmenter(tmp_path: Path) -> None:
    """A new line of the registry; of WeCLIP, title, checks and the demo's default."""
    options = "wsss.refine.weclip.options"
    edits = {
        REGISTRY: ('    "weclip": ', '    "other": WeClipOptions,\n    "weclip": '),
        options: ('"WeCLIP"', '"Another title"'),
        "wsss.config.model": ('"weclip": {"width": 64,', '"weclip": {"width": 32,'),
    }
    texts = {module: MODULES[module].read_text().replace(*edit) for module, edit in edits.items()}
    assert all(text != MODULES[module].read_text() for module, text in texts.items())
    texts[options] = texts[options].replace("def cross_checks(", "def _cross_checks(")
    with edited(texts, tmp_path):
        stages = {stage for stage, method in changed() if method != "weclip"}
    assert {"table", "paper_table"} <= stages
    stages = {stage for stage in stages if not stage.startswith(("score_", "photo"))}
    assert stages <= TABLES


def test_a_new_property_of_pseudo_masks_reaches_no_cams(tmp_path: Path) -> None:
    with edited({"wsss.config.labels": _with_code("wsss.config.labels")}, tmp_path):
        assert not {("cams", "none"), ("clip_tags", "none")} & changed()


def test_fields_of_sections_reach_no_stage(tmp_path: Path) -> None:
    module = "wsss.config.cams"
    text = MODULES[module].read_text()
    field = text.replace("    power: ", "    another: int = 3\n    power: ", 1)
    assert field != text
    with edited({module: field}, tmp_path):
        assert not changed()


@pytest.mark.parametrize(
    ("stage", "used", "unused"),
    [
        ("ingest", {"PIL", "numpy"}, {"torch", "pydensecrf"}),
        ("cams", {"torch", "open_clip", "PIL"}, {"mmseg", "pydensecrf"}),
        ("masks", {"pydensecrf", "numpy"}, {"open_clip", "mmseg"}),
        ("retrain", {"mmseg", "mmengine", "mmcv", "torch"}, {"pydensecrf"}),
        ("score_masks", {"numpy", "pycocotools"}, {"torch"}),
    ],
)
def test_packages_are_those_that_the_code_imports(
    stage: str, used: set[str], unused: set[str]
) -> None:
    packages = imported_packages(entries(stage, "none"))
    assert used <= packages
    assert not unused & packages
    assert packages <= DISTRIBUTIONS.keys()


def test_unknown_module_is_an_error() -> None:
    with pytest.raises(ValueError, match="no such module"):
        code_digest(["wsss.nowhere"])


def test_a_folder_without_init_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "_ROOT", tmp_path / "wsss")
    (tmp_path / "wsss/refine/toy").mkdir(parents=True)
    (tmp_path / "wsss/refine/__init__.py").touch()
    with pytest.raises(ValueError, match=r"^wsss/refine/toy/__init__\.py is missing"):
        code_digest(["wsss.refine.toy.method"])
