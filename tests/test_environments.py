"""The conda environment of a rule contains what the rule's stage imports."""

import re
import sys
import tomllib
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, metadata, packages_distributions
from pathlib import Path

import grimp
import pytest
import yaml
from packaging.specifiers import SpecifierSet

from wsss.artifacts.code_digest import imported_modules
from wsss.config.load import from_mapping
from wsss.pipeline.stages import STAGES, entry_modules
from wsss.refine.registry import METHODS

ROOT = Path(__file__).parents[1]
COMMAND_LINE = ("wsss.cli.app", "wsss.cli.commands.launch", "wsss.cli.options", "wsss.config.load")


def _normal(name: str) -> str:
    return name.lower().replace("_", "-")


def _environments() -> dict[str, set[str]]:
    """By environment the stages of the rules that use it."""
    stages = defaultdict(set)
    for path in sorted((ROOT / "workflow/rules").glob("*.smk")):
        for rule in re.split(r"\n\s*rule ?\w*:", path.read_text())[1:]:
            if "shell:" not in rule:  # a target that stops with an error, and runs nothing
                continue
            environment = re.search(r"envs/(\w+)\.yaml", rule)
            stage = re.search(r'code=code\("(\w+)"\)', rule)
            assert environment, f"a rule of {path.name} without a conda environment"
            assert stage, f"a rule of {path.name} without a digest of its code"
            stages[environment[1]].add(stage[1])
    return dict(stages)


def _packages(name: str) -> set[str]:
    (pip,) = [
        part["pip"]
        for part in yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())["dependencies"]
        if isinstance(part, dict)
    ]
    return {_normal(pin.partition("==")[0]) for pin in pip}


def _needed(stages: set[str]) -> dict[str, str]:
    """Distributions that the stages import directly, with a module that does."""
    configs = [from_mapping({"refine": {"method": method}}) for method in ["none", *METHODS]]
    entries = {module for s in stages for config in configs for module in entry_modules(s, config)}
    graph = grimp.build_graph("wsss", include_external_packages=True)
    distributions = packages_distributions()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = project["dependencies"] + extras["segment"] + extras["crf"]
    direct = {_normal(line.partition("==")[0]) for line in lines}
    providers = {}
    modules = imported_modules(entries) | set(COMMAND_LINE)
    modules |= {m for m in graph.modules if m.startswith("wsss.config")} - {"wsss.compute.device"}
    for module in modules:
        for imported in graph.find_modules_directly_imported_by(module):
            if imported.startswith("wsss") or imported in sys.stdlib_module_names:
                continue
            assert imported in distributions, f"{module} imports {imported}, from no distribution"
            names = {_normal(name) for name in distributions[imported]}
            if matches := names & direct:
                providers[min(matches)] = module
    return providers


@pytest.mark.parametrize("lock", ["requirements.lock", "docs/requirements.lock"])
def test_pins_accept_the_oldest_python(lock: str) -> None:
    """Also where this interpreter is a later one, which pip would not complain of."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = re.search(r">=(\d+\.\d+)", project["requires-python"])
    assert oldest
    names = re.findall(r"^([\w.-]+)==", (ROOT / lock).read_text(), re.MULTILINE)
    refusing, seen = [], 0
    for name in names:
        try:
            required = metadata(name)["Requires-Python"]
        except PackageNotFoundError:  # of another system, or the pages are not built here
            continue
        seen += 1
        if required and f"{oldest[1]}.0" not in SpecifierSet(required):
            refusing.append(f"{name} {required}")
    assert not refusing
    if not seen:
        pytest.skip("the packages of the pages are not installed: make docs")


def test_every_environment_is_used() -> None:
    assert set(_environments()) == {path.stem for path in (ROOT / "envs").glob("*.yaml")}
    used = set().union(*_environments().values())
    assert used <= set(STAGES)


@pytest.mark.parametrize("name", sorted(_environments()))
def test_environment_holds_what_its_stages_import(name: str) -> None:
    needed = _needed(_environments()[name])
    assert len(needed) > 5
    missing = {package: who for package, who in needed.items() if package not in _packages(name)}
    assert not missing, f"envs/{name}.yaml lacks {missing}"
