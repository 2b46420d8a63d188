"""Pins agree wherever they are written."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import wsss

ROOT = Path(__file__).parents[1]


def _normal(name: str) -> str:
    return name.lower().replace("_", "-")


def _lock(name: str = "requirements.lock") -> dict[str, str]:
    """The pins by name, whatever the version of Python."""
    lines = (line.partition(";")[0] for line in (ROOT / name).read_text().splitlines())
    pins = [line.split("==") for line in lines if "==" in line and not line.startswith("#")]
    return {_normal(name): version for name, version in pins}


def test_lock_holds_every_direct_dependency_at_its_pin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = _lock()
    extras = [project["optional-dependencies"][name] for name in ("crf", "segment", "slurm", "dev")]
    for requirement in chain(project["dependencies"], *extras):
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


def test_the_lock_needs_nothing_that_it_lacks() -> None:
    """It is installed without resolving; what torch brings is installed before."""
    lock = _lock()
    missing = {
        (name, required)
        for name in lock
        if name != "torch" and (name != "pydensecrf2" or sys.version_info < (3, 13))
        for line in requires(name) or ()
        if (requirement := Requirement(line))
        and (requirement.marker is None or requirement.marker.evaluate({"extra": ""}))
        and (required := _normal(requirement.name)) not in lock
    }
    assert missing == {
        ("onedl-mmcv", "opencv-python"),
        ("onedl-mmsegmentation", "opencv-python"),
    }  # the lock has opencv-python-headless, the same functions
    assert "opencv-python-headless" in lock


def test_release_notes_are_the_section_of_the_tag(tmp_path: Path) -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    (script,) = (s["run"] for s in workflow["jobs"]["release"]["steps"] if s.get("name") == "notes")
    changelog = "# Changelog\n\n## 9.9.9\n\n- new\n\n## 1.0\n\n- old\n"
    (tmp_path / "CHANGELOG.md").write_text(changelog)
    (tmp_path / "wsss").mkdir()
    (tmp_path / "wsss/__init__.py").write_text('__version__ = "9.9.9"\n')

    def run(tag: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-e", "-c", script],
            cwd=tmp_path,
            env=os.environ | {"GITHUB_REF_NAME": tag},
            text=True,
            capture_output=True,
            check=False,
        )

    assert run("v9.9.9").returncode == 0
    assert (tmp_path / "notes.md").read_text().split() == ["-", "new"]
    assert "tag v1.0: wsss/__init__.py has another version" in run("v1.0").stderr
    (tmp_path / "CHANGELOG.md").write_text("## 1.0\n")
    assert "CHANGELOG.md: has no section '## 9.9.9'" in run("v9.9.9").stderr


def test_the_version_stands_in_one_place() -> None:
    """`wsss.__version__`; the citation and the newest release of the changelog agree with it."""
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"] == ["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == wsss.__version__
    releases = re.findall(r"^## (\d\S*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert releases[0] == wsss.__version__
