"""The plan of an engine, and the jobs of a cluster that follow it."""

import datetime
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wsss.config.load import from_mapping
from wsss.pipeline.job import EngineChangedError, job_of, read_named
from wsss.pipeline.plan import PLAN_VARIABLE, Plan

ROOT = Path(__file__).parents[2]
MAPPING = {"name": "demo", "masks": {"min_confidence": 0.5}}
CONFIG = from_mapping(MAPPING)
EDITED = from_mapping({"retrain": {"lr": 1e-5}})


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files of a workflow; in the folder of an engine."""
    monkeypatch.setenv(PLAN_VARIABLE, "")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".snakemake").mkdir()
    paths = [tmp_path / "Snakefile", tmp_path / "masks.smk"]
    for path in paths:
        path.write_text("rule")
    return paths


def _files(folder: Path) -> list[Path]:
    return [path for path in (folder / ".snakemake").rglob("*") if path.is_file()]


def test_an_engine_does_without_torch() -> None:
    """Whose import takes longer than a dry run."""
    text = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    imports = re.findall(r"^from wsss[.\w]* import (?:\([^)]*\)|.*)$", text, re.MULTILINE)
    assert len(imports) > 20
    program = "\n".join([*imports, "import sys; sys.exit('torch' in sys.modules)"])
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_a_dry_run_writes_nothing(rules: list[Path], tmp_path: Path) -> None:
    plan = Plan(MAPPING, rules, is_job=False)
    path = plan.file("masks", "demo", CONFIG, write=False)
    assert not _files(tmp_path)
    assert plan.file("masks", "demo", CONFIG, write=True) == path
    assert read_named(Path(path)) == job_of("masks", CONFIG).text()


def test_a_job_follows_the_plan_and_not_what_it_reads(rules: list[Path]) -> None:
    plan = Plan(MAPPING, rules, is_job=False)
    paths = {
        (stage, run): plan.file(stage, run, CONFIG, write=True)
        for stage in ("cams", "masks")
        for run in ("demo/a", "demo/b")
    }
    assert len(set(paths.values())) == 2  # equal texts of two runs are one file
    job = Plan({"name": "edited"}, rules, is_job=True)
    assert job.config == MAPPING
    for (stage, run), path in paths.items():
        assert job.file(stage, run, CONFIG, write=True) == path
    with pytest.raises(EngineChangedError, match="configuration of demo/a changed since"):
        job.file("cams", "demo/a", EDITED, write=True)
    with pytest.raises(EngineChangedError, match="configuration of demo/a changed since"):
        job.file("retrain", "demo/a", CONFIG, write=True)  # the engine planned none


def test_a_damaged_file_is_written_anew(rules: list[Path]) -> None:
    path = Path(Plan(MAPPING, rules, is_job=False).file("cams", "a", CONFIG, write=True))
    path.write_text("{} ")
    Plan(MAPPING, rules, is_job=False).file("cams", "a", CONFIG, write=True)
    assert read_named(path) == job_of("cams", CONFIG).text()


@pytest.mark.parametrize("change", ["edited", "added"])
def test_other_rules_are_refused(rules: list[Path], change: str) -> None:
    Plan(MAPPING, rules, is_job=False).file("masks", "demo", CONFIG, write=True)
    if change == "edited":
        rules[1].write_text("rule:")
    else:
        rules.append(rules[1].with_name("more.smk"))
        rules[2].write_text("")
    with pytest.raises(EngineChangedError, match=f"engine started: {rules[-1]}; start the"):
        Plan(MAPPING, rules, is_job=True)


@pytest.mark.parametrize("value", ["", "/nowhere/plan.jsonl"])
def test_a_job_without_a_plan_is_refused(
    rules: list[Path], value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PLAN_VARIABLE, value)
    with pytest.raises(EngineChangedError, match=f"{PLAN_VARIABLE}={value}: cannot be read"):
        Plan(MAPPING, rules, is_job=True)


def test_what_json_knows_not_travels_as_text(rules: list[Path]) -> None:
    config: dict[str, Any] = {"name": datetime.date(2026, 1, 2)}
    Plan(config, rules, is_job=False).file("masks", "demo", CONFIG, write=True)
    assert Plan({}, rules, is_job=True).config == {"name": "2026-01-02"}
