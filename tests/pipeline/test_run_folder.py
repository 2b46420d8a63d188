"""Which folder of a run a text of the command line names."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wsss.artifacts.errors import ArtifactError
from wsss.cli.app import app
from wsss.pipeline.run_folder import named_run, run_folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a run, and with what `wsss photos` wrote; a project next to it."""
    for name in ("here/results/demo", "here/p-masks/results/photos", "there/results/demo"):
        (tmp_path / name / "logs").mkdir(parents=True)
    (tmp_path / "here/results/cache/text").mkdir(parents=True)
    (tmp_path / "here/photos").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_a_run_by_its_name_or_its_folder(project: Path) -> None:
    for text in ("demo", "results/demo", "results/demo/", "./results/demo", str(project), "."):
        assert named_run(text).resolve() == project / "results/demo"
    photos = project / "p-masks/results/photos"
    for text in (
        "p-masks",
        "p-masks/",
        "p-masks/results/photos",
        str(photos),
        str(photos.parents[1]),
    ):
        assert named_run(text).resolve() == photos
    # The folder of this name below another folder is not that below this one.
    (project / "there/results/demo/logs").mkdir(parents=True)
    other = project.parent / "there/results/demo"
    for text in ("../there", "../there/results/demo", str(other)):
        assert named_run(text).resolve() == other


def test_a_folder_that_is_no_run_is_named_as_typed(project: Path) -> None:
    with pytest.raises(ArtifactError, match=r"^p-mask: no such folder; pass the results of a run"):
        named_run("p-mask")
    (project / "results/other/cams").mkdir(parents=True)
    expected = re.escape(f"{project}: holds 2 runs; name one of them: {project}/results/demo, ")
    with pytest.raises(ArtifactError, match=f"^{expected}"):
        named_run(str(project))
    assert run_folder(Path(), "cams") == Path("results/other")
    assert run_folder(Path("p-masks"), "segmenter") == Path("p-masks")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("show demo", "results/demo: holds no results"),
        ("show demos", "demos: no such folder"),
        (
            "show photos",
            "photos: holds no results; run snakemake first, or pass results/<name> or the folder",
        ),
        ("verify photos", "photos: is not the folder of a run; pass results/<name>, or the folder"),
        ("clean photos", "photos: is not the folder of a run; pass results/<name>, or the folder"),
        ("verify demos", "demos: no such folder"),
        ("clean demos", "demos: no such folder"),
    ],
)
def test_commands_name_the_run(project: Path, command: str, message: str) -> None:
    """Also where there is no configuration."""
    done = CliRunner().invoke(app, command.split())
    assert str(done.exception).startswith(message)
