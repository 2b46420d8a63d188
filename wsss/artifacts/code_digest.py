"""A digest of what the code of a stage does, so that editing it reruns the stage.

Snakemake does not see edits inside an imported package. Rules therefore carry this digest as a
parameter. It covers the entry modules of a stage and all that they import, transitively, inside
this package. Imports are read from the source with grimp; nothing is executed.

The digest is over syntax trees without comments, docstrings and formatting. Left out are

- plumbing that changes no content: `wsss.artifacts`, `wsss.compute` and `wsss.errors`, except what
  draws or sums numbers, or decides on how many threads they are summed. How artifacts look on disk
  has a number, `FORMAT`, which is covered;
- the fields of configuration sections: rules carry their values. Functions, properties and
  validators of `wsss.config` are covered like any code;
- in stages that run a refiner, the list of refiners and what it imports: such a stage names the
  module of its refiner. Scores and tables read facts of all refiners, e.g. their titles.

Each source is parsed once: what was read from it lies beside its bytecode, with a digest of the
source. Where bytecode is not written (`PYTHONDONTWRITEBYTECODE`), each process parses all of them.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib.util import cache_from_source
from pathlib import Path

import grimp

import wsss
from wsss.artifacts.atomic import write_one_of_many
from wsss.artifacts.errors import WriteError
from wsss.artifacts.provenance import BROUGHT_BY, DISTRIBUTIONS

FORMAT = 3
"""Of everything that `wsss.artifacts` writes; a new number reruns every stage. Shards before 3
named their checksum otherwise; 1 had none over keys, attributes and provenance."""
_PACKAGE = "wsss"
_ROOT = Path(wsss.__file__).parent
_PLUMBING = ("wsss.artifacts", "wsss.compute", "wsss.errors")
_COMPUTES = frozenset(
    f"wsss.compute.{name}" for name in ("seeding", "distributed", "threads", "precision")
)
_REGISTRY = "wsss.refine.registry"
_RULES = hashlib.sha256(Path(__file__).read_bytes() + repr(sorted(DISTRIBUTIONS)).encode()).digest()
"""Of what is read from a source: with other rules, all sources are parsed again."""


def code_digest(modules: Iterable[str]) -> str:
    """Digest of what ``modules`` and everything in the package that they import do.

    Args:
        modules: dotted names inside the package, e.g. ``wsss.cams.stage``.

    Returns:
        Hexadecimal sha256.

    Raises:
        ValueError: a module does not exist.
    """
    total = hashlib.sha256(str(FORMAT).encode())
    for name, digest in module_digests(modules).items():
        total.update(name.encode() + b"\0" + digest.encode())
    return total.hexdigest()


def module_digests(modules: Iterable[str]) -> dict[str, str]:
    """Digest of each module that `code_digest` covers, by its name.

    Args:
        modules: dotted names inside the package.

    Raises:
        ValueError: a module does not exist.
    """
    return {name: first_digest(name) for name in sorted(_counted(tuple(modules)))}


def first_digest(module: str) -> str:
    """Digest of what a module did when this process first asked: a process has one view of it."""
    return _first_facts(module, source_file(module))[0]


def source_digest(module: str) -> str:
    """Digest of what a module does, by its source as it is now.

    Raises:
        OSError: the source cannot be read.
        SyntaxError: it is no Python.
    """
    return _source_facts(module, source_file(module))[0]


@functools.cache
def source_file(module: str) -> Path:
    """The source of a module of the package."""
    path = _ROOT.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imported_packages(modules: Iterable[str]) -> frozenset[str]:
    """Other packages that the code behind `code_digest` imports and that can change a result.

    Args:
        modules: as of `code_digest`.

    Returns:
        Names of `wsss.artifacts.provenance.DISTRIBUTIONS`.
    """
    facts = (_first_facts(name, source_file(name)) for name in _counted(tuple(modules)))
    packages = frozenset().union(*(imported for _, imported in facts))
    return packages.union(*(BROUGHT_BY.get(name, ()) for name in packages))


def imported_modules(modules: Iterable[str], *, through_registry: bool = True) -> set[str]:
    """``modules`` and every module of the package whose code runs when they are imported.

    Args:
        modules: dotted names.
        through_registry: follow what the list of refiners imports, too.

    Raises:
        ValueError: a module does not exist.
    """
    graph = _graph()
    pending = list(modules)
    for name in pending:
        if name not in graph.modules:
            raise ValueError(_missing(name))
    reached: set[str] = set()
    while pending:
        name = pending.pop()
        if name in reached:
            continue
        reached.add(name)
        if name != _PACKAGE and (name != _REGISTRY or through_registry):
            # the package itself imports its public names when they are used
            pending += graph.find_modules_directly_imported_by(name)
        parent = name.rpartition(".")[0]  # importing a.b.c runs a/__init__ and a/b/__init__ too
        if parent:
            pending.append(parent)
    return reached


def _missing(module: str) -> str:
    """Why there is no such module: mostly a new folder that is no package yet."""
    for folder in reversed(source_file(module).parents):
        if _ROOT in folder.parents and folder.is_dir() and not (folder / "__init__.py").is_file():
            missing = (folder / "__init__.py").relative_to(_ROOT.parent)
            return f"{missing} is missing, so {module} is no module; write it"
    return f"{module}: no such module in {_PACKAGE}; a stage names a wrong entry module"


@functools.cache
def _counted(modules: tuple[str, ...]) -> frozenset[str]:
    """The modules that `code_digest` covers."""
    runs_refiner = any(name.startswith("wsss.refine.") for name in modules)
    reached = imported_modules(modules, through_registry=not runs_refiner)
    return frozenset(filter(_counts, reached)) - ({_REGISTRY} if runs_refiner else set())


def _counts(module: str) -> bool:
    plumbing = module.startswith(tuple(f"{room}." for room in _PLUMBING)) or module in _PLUMBING
    return module != _PACKAGE and (not plumbing or module in _COMPUTES)


@functools.cache
def _graph() -> grimp.ImportGraph:
    return grimp.build_graph(_PACKAGE, cache_dir=None)


def _source_facts(module: str, path: Path) -> tuple[str, frozenset[str]]:
    """Digest of what a module does, and the packages that it imports."""
    source = path.read_bytes()
    key = hashlib.sha256(b"\0".join((_RULES, module.encode(), source))).hexdigest()
    cache = Path(cache_from_source(path)).with_suffix(".digest")
    with suppress(OSError, ValueError):
        cached_key, digest, *packages = cache.read_text("ascii").split()
        if cached_key == key:
            return digest, frozenset(packages)
    facts = _parsed_facts(module, source)
    if not sys.dont_write_bytecode:
        with suppress(OSError, WriteError):  # it can be done without
            write_one_of_many(cache, " ".join([key, facts[0], *sorted(facts[1])]).encode("ascii"))
    return facts


def _parsed_facts(module: str, source: bytes) -> tuple[str, frozenset[str]]:
    packages: set[str] = set()
    tree = ast.parse(source)
    declares = module.startswith(f"{_PACKAGE}.config.") or module.endswith(".options")
    for node in ast.walk(tree):
        packages |= _packages(node)
        body = getattr(node, "body", None)
        if isinstance(body, list):
            fields = declares and isinstance(node, ast.ClassDef)
            node.body = [  # type: ignore[attr-defined]
                statement
                for statement in body
                if not _is_text(statement) and not (fields and _is_field(statement))
            ]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), frozenset(packages)


def _packages(node: ast.AST) -> set[str]:
    """Names of `DISTRIBUTIONS` that a statement imports."""
    match node:
        case ast.Import():
            names = {alias.name for alias in node.names}
        case ast.ImportFrom(module=str(name)):
            names = {name}
        case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(str(name))]):
            names = {name}
        case _:
            return set()
    return {name.partition(".")[0] for name in names} & DISTRIBUTIONS.keys()


_first_facts = functools.cache(_source_facts)


def _is_field(statement: ast.stmt) -> bool:
    """A key of a section, not a fact of the class."""
    return isinstance(statement, ast.AnnAssign) and "ClassVar" not in ast.dump(statement.annotation)


def _is_text(statement: ast.stmt) -> bool:
    """A docstring, of a module, class, function or attribute."""
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
        return False
    return isinstance(statement.value.value, str)
