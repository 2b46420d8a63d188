"""What a job is given by file, and the code that it refuses to run."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import wsss
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.stage import STAGES
from wsss.cli.options import stage_values
from wsss.config.errors import ConfigError
from wsss.config.load import from_mapping
from wsss.config.model import DEMO
from wsss.pipeline.job import (
    JOB_VARIABLE,
    Job,
    current_job,
    given_files,
    job_changes,
    job_of,
    named_by_digest,
)
from wsss.score.record import write_records

from ..hostile.harness import wsss as run_command
from ..score.tables.test_write import make_record

ROOT = Path(wsss.__file__).parents[1]
_CODE = Path("wsss/score/figures/curves.py")
_LOSS = "step,loss\n1,2.0\n2,1.5\n"


def _write(folder: Path, text: str) -> Path:
    path = named_by_digest(folder, "job", text)
    path.write_text(text)
    return path


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_a_stage_gets_the_same_values_through_the_workflow(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = from_mapping({"variant": "published", "seed": 7, "refine": {"method": "weclip"}})
    path = _write(tmp_path, job_of(stage, config).text())
    monkeypatch.setenv(JOB_VARIABLE, str(path))
    values = stage_values(stage, [], batch=3)
    assert values.pop("compute").batch == 3
    for name, expected in STAGES[stage].select(config).items():
        value = values.pop(name)
        if name == "refine":  # options of other methods do not travel: a change reruns nothing
            value, expected = value.effective(), expected.effective()
        assert value == expected
    assert not values


def test_the_workflow_and_the_command_line_get_the_same_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand = stage_values("cams", [ROOT / "config.yaml"], workers=1)
    path = _write(tmp_path, job_of("cams", from_mapping(DEMO)).text())
    monkeypatch.setenv(JOB_VARIABLE, str(path))
    assert by_hand == stage_values("cams", [], workers=1)


def test_changes_name_settings_and_modules_and_no_idle_key() -> None:
    refine = {"method": "weclip", "weclip": {"rfm_start": 200}}
    old = job_of("refine_train", from_mapping({"refine": refine}))
    changed = {"method": "weclip", "weclip": {"rfm_start": 100}, "train": {"checkpoint_every": 7}}
    config = from_mapping({"refine": changed})
    new = job_of("refine_train", config)
    code = {**new.code, "wsss.refine.stage": "", "wsss.refine.other": ""}
    del code["wsss.refine.load"]
    assert job_changes(old, dataclasses.replace(new, code=code), config) == [
        "refine.weclip.rfm_start: 200 -> 100",
        "code of wsss.refine.load, wsss.refine.other, wsss.refine.stage",
    ]
    assert job_changes(new, new, config) == []


def test_files_of_the_job_stand_in_for_those_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert given_files("masks", []) == []
    job = job_of("page", from_mapping(DEMO), files={"masks": ["1-of-2.h5", "2-of-2.h5"]})
    monkeypatch.setenv(JOB_VARIABLE, str(_write(tmp_path, job.text())))
    assert given_files("masks", []) == [Path("1-of-2.h5"), Path("2-of-2.h5")]
    assert given_files("masks", [Path("other.h5")]) == [Path("other.h5")]
    assert given_files("cams", []) == []


def test_a_job_of_another_stage_is_refused() -> None:
    with pytest.raises(ConfigError, match="is a job of masks, not of cams"):
        job_of("masks", from_mapping({})).config("cams")
    with pytest.raises(ConfigError, match="expected"):
        Job("cams", {"masks": {}}, {}).config("cams")


def test_an_edited_or_missing_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path, job_of("masks", from_mapping({})).text())
    path.write_text(path.read_text().replace("0.", "1.", 1))
    monkeypatch.setenv(JOB_VARIABLE, str(path))
    with pytest.raises(ArtifactError, match="does not match its digest"):
        current_job()
    monkeypatch.setenv(JOB_VARIABLE, str(tmp_path / "none.json"))
    with pytest.raises(ArtifactError, match="the engine writes it before it starts"):
        current_job()


@pytest.mark.parametrize(
    "text",
    ["{", "[" * 100_000, "3", '{"a": 1}', '{"stage": "ingest", "sections": {"a": 1}, "code": {}}']
    + [f'{{"stage": "ingest", "sections": {{"data": {v}, "variant": 1}}, "code": {{}}}}' for v in
       ("NaN", "3", '{"variant": NaN}')],
)  # fmt: skip
def test_what_is_no_job_is_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(JOB_VARIABLE, str(_write(tmp_path, text)))
    run_command("ingest", "--out", tmp_path / "m").refused()


def test_the_rows_of_a_table_of_runs_come_by_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file may belong to several rows, whose names may hold quotes and braces."""
    paths = [str(tmp_path / name) for name in ("shared.json", "own.json")]
    write_records(Path(paths[0]), [make_record("cam", run="runs", miou=0.4)])
    write_records(Path(paths[1]), [make_record("masks", run="runs.b", miou=0.6)])
    rows = {"a": paths[:1], "{b} 'c'": paths}
    path = _write(tmp_path, job_of("comparison", from_mapping({}), rows).text())
    assert "pass files of records" in run_command("compare", "--out", tmp_path).text
    monkeypatch.setenv(JOB_VARIABLE, str(path))
    run_command("compare", "--out", tmp_path).done()
    lines = (tmp_path / "sweep.md").read_text().splitlines()
    assert "| shared | 40.0 |  |" in lines  # of both
    assert "| {b} 'c' |  | 60.0 |" in lines


class _Copy:
    """A copy of the package, whose code can be edited, and a job of the stage that draws curves."""

    def __init__(self, root: Path) -> None:
        self.root = root
        ignore = shutil.ignore_patterns("weights", "descriptions")
        shutil.copytree(ROOT / "wsss", root / "wsss", ignore=ignore)
        (root / "loss.csv").write_text(_LOSS)
        self.job = _write(root, job_of("charts", from_mapping({})).text())

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(self.root), JOB_VARIABLE: str(self.job)}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.root, env=environment, text=True, capture_output=True, check=False,
        )  # fmt: skip

    def draw(self) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "wsss", "loss-curve", "loss.csv", "--out", "curve.png")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> _Copy:
    return _Copy(tmp_path_factory.mktemp("copy"))


@pytest.mark.slow
def test_edited_code_is_not_run(copy: _Copy) -> None:
    source = copy.root / _CODE
    before = source.read_text()
    source.write_text(before + "\nEDITED = 1\n")
    done = copy.draw()
    source.write_text(before)
    message = f"error: code of stage charts changed since the engine started: {_CODE}; start the"
    assert message in " ".join(done.stderr.split())
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert not (copy.root / "curve.png").exists()


_EDITED_LATER = """
from pathlib import Path
from wsss.compute.pool import WorkerPool
from wsss.pipeline.job import current_job, refuse_other_code

def use():  # in this process, or in one that it starts
    if {worker}:
        from wsss.score.figures import curves
    source = Path("{code}")
    before = source.read_text()
    source.write_text(before + "\\nEDITED = 1\\n")
    try:
        if {worker}:
            with WorkerPool(2) as pool:
                list(pool.map(curves.loss_curve, [("a curve", None)]))
        import wsss.score.figures.curves
    except Exception as error:
        print(type(error).__name__, error)
    source.write_text("# a comment\\n" + before)
    import wsss.score.figures.curves
    source.write_text(before)

if __name__ == "__main__":
    refuse_other_code(current_job())
    use()
"""


@pytest.mark.slow
@pytest.mark.parametrize("worker", [False, True])
def test_code_that_is_edited_and_set_back_while_a_job_runs_is_not_imported(
    copy: _Copy, worker: bool
) -> None:
    done = copy.run("-c", _EDITED_LATER.format(worker=worker, code=_CODE))
    assert done.returncode == 0, done.stderr
    name, message = done.stdout.split(maxsplit=1)
    assert name == ("WorkerError" if worker else "EngineChangedError")
    assert f"code of stage charts changed since the engine started: {_CODE}; start" in message
