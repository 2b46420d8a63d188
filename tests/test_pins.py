"""Pins agree wherever they are written."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import wsss

ROOT = Path(__file__).parents[1]


def _normal(name: str) -> str:
    return name.lower().replace("_", "-")


def _lock(name: str = "requirements.lock") -> dict[str, str]:
    lines = (ROOT / name).read_text().splitlines()
    pins = [line.split("==") for line in lines if "==" in line]
    return {_normal(name): version for name, version in pins}


def test_lock_holds_every_direct_dependency_at_its_pin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = _lock()
    requirements = project["dependencies"] + project["optional-dependencies"]["dev"]
    for requirement in requirements:
        name, _, version = requirement.partition("==")
        assert _normal(name) in lock, f"{name} is missing from requirements.lock"
        assert version in ("", lock[_normal(name)]), requirement


def test_lock_of_the_docs_holds_its_dependencies_and_nothing_of_the_other_lock() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = _lock("docs/requirements.lock")
    assert set(map(_normal, project["optional-dependencies"]["docs"])) <= lock.keys()
    assert not lock.keys() & _lock().keys()


@pytest.mark.parametrize("path", sorted((ROOT / "envs").glob("*.yaml")), ids=lambda path: path.stem)
def test_conda_environments_hold_the_same_pins(path: Path) -> None:
    lock = _lock()
    (pip,) = [
        d["pip"] for d in yaml.safe_load(path.read_text())["dependencies"] if isinstance(d, dict)
    ]
    assert pip
    for pin in pip:
        name, _, version = pin.partition("==")
        assert lock[_normal(name)] == version, pin


def test_the_version_stands_in_one_place() -> None:
    """`wsss.__version__`; the citation and the newest release of the changelog agree with it."""
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"] == ["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == wsss.__version__
    releases = re.findall(r"^## (\d\S*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert releases[0] == wsss.__version__
