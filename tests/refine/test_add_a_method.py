"""docs/howto/add-a-method.md: its toy method runs, its excerpts are of the real one."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflow.conftest import ROOT, copy_project

PAGE = ROOT / "docs/howto/add-a-method.md"
CONFIG = {
    "shards": 1,
    "compute": {"workers": 1},
    "data": {"root": "results/tiny-data", "demo_images": [4, 2]},
    "cams": {"splits": ["train"], "affinity": {"enabled": False}},
    "refine": {"method": "toy", "train": {"iterations": 3, "batch": 2, "warmup": 1, "threads": 1}},
    "infer": {"crf": False, "scales": [1.0]},
    "masks": {"crf": {"enabled": False}},
    "retrain": {"enabled": False},
}
OF_ALL_METHODS = (
    "auto_that_depends_on_the_chain", "every_key_of_the_shipped_file_is_valid_with_its_value",
    "refine_method_comes_from_the_registry", "generated_file_is_up_to_date",
    "the_reference_has_every_key_in_its_section", "every_key_is_explained_in_the_shipped_file",
    "variant_decides_every_auto", "many_options_follow_the_variant",
)  # fmt: skip
"""Tests of the configuration that go through all methods and keys."""


def blocks() -> dict[str, str]:
    """The code of the page by the file that its first line names."""
    fenced = re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return dict(fenced)


def add_toy(project: Path) -> None:
    """What the page tells to do."""
    code = blocks()
    line = code.pop("wsss/refine/registry.py")
    for name, text in code.items():
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name("__init__.py").write_text('"""Toy."""\n')
        path.write_text(text)
    registry = project / "wsss/refine/registry.py"
    head = "from wsss.refine.toy.options import ToyOptions\n"
    text = registry.read_text().replace(
        "from wsss.refine.weakclip", f"{head}from wsss.refine.weakclip"
    )
    registry.write_text(re.sub(r"(METHODS: .*?)\}", rf"\1{line}}}", text, flags=re.DOTALL))


def test_excerpts_are_of_the_code() -> None:
    fenced = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    excerpts = [text for text in fenced if not text.startswith(("# wsss/", "# tests/"))]
    files = [*ROOT.glob("wsss/refine/weclip_plus/*.py"), ROOT / "wsss/refine/registry.py"]
    code = "\n".join(path.read_text() for path in files)
    assert len(excerpts) > 5
    for excerpt in excerpts:
        assert excerpt in code, excerpt


def test_the_lengths_of_the_files_are_about_right() -> None:
    rows = re.findall(r"^\| `(\w+\.py)` \| (\d+) \|", PAGE.read_text(), re.MULTILINE)
    assert len(rows) == 4
    for name, lines in rows:
        text = (ROOT / "wsss/refine/weclip_plus" / name).read_text()
        assert abs(len(text.splitlines()) - int(lines)) <= 15, name


@pytest.mark.slow
def test_the_toy_method_passes_the_tests_of_every_method(tmp_path: Path) -> None:
    """Those of `MethodTests`, registry and configuration, in a copy of the project."""
    copy = copy_project(tmp_path / "project")
    project = copy.root
    ignore = shutil.ignore_patterns("__pycache__", "golden", "hostile", "workflow", "score")
    shutil.copytree(ROOT / "tests", project / "tests", ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", project)
    add_toy(project)
    environment = os.environ | {"PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}
    schema = project / "workflow/schemas/config.schema.json"
    schema.write_text(copy.wsss("config", "schema").communicate()[0])  # `make generated`
    tests = ["tests/refine/toy", "tests/refine/test_registry.py"]
    tests += [f"tests/config/test_config.py::test_{name}" for name in OF_ALL_METHODS]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout


@pytest.mark.workflow
@pytest.mark.slow
def test_a_toy_method_from_the_page(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    add_toy(project.root)
    project.configure(**CONFIG)
    project.snakemake("--", "results/tiny/tables/table.md")
    table = (project.results / "tables/table.md").read_text()
    assert re.search(r"^\| Toy scores? \|.* \d", table, re.MULTILINE), table
    assert re.search(r"^\| Toy prediction \|", table, re.MULTILINE), table
    log = (project.results / "refine/loss.csv").read_text().splitlines()
    assert log[0] == "step,lr,loss"
    assert len(log) == 1 + 3
