"""Configurations that would write outside of their folder through the workflow."""

from pathlib import Path

import pytest
from PIL import Image

from wsss.compute.device import torch_has_cuda

from .conftest import Project, copy_project

pytestmark = pytest.mark.workflow
ODD = 'it\'s "odd"; touch ran $(touch ran) `touch ran` * & ünï'


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return copy_project(tmp_path_factory.mktemp("hostile"))


def test_odd_paths_are_quoted(project: Project) -> None:
    """Folders and weights are inputs of rules, and travel in the sections that a job is given."""
    weights = project.root / f"{ODD}.pth"
    weights.write_bytes(b"")
    photos = project.root / ODD
    photos.mkdir()
    Image.new("RGB", (16, 16)).save(photos / "a.jpg")
    (photos / "tags.csv").write_text("image,tags\na.jpg,cat\n")
    project.configure(
        data={"kind": "folder", "root": ODD, "val_list": ""},
        cams={"splits": ["train"]},
        refine={"method": "none"},
        retrain={"init": weights.name},
    )
    table = "results/tiny/manifest/manifest.csv"
    project.snakemake(table)
    assert (project.root / table).is_file()
    assert not list(project.root.rglob("ran"))


def test_the_demos_folder_can_have_an_odd_name(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_FOLDER", "results")
    project.configure(data={"root": f"${{TEST_FOLDER}}/{ODD}", "demo_images": [2, 1]})
    manifest = "results/tiny/manifest/manifest.csv"
    project.snakemake(manifest)
    assert (project.root / "results" / ODD / "demo.json").is_file()
    assert (project.root / manifest).is_file()
    assert not list(project.root.rglob("ran"))


def test_paths_outside_the_project_are_refused_before_any_job(project: Project) -> None:
    """All such values at once; `tests/hostile/test_configs.py` has each."""
    project.configure(
        name="../elsewhere", compute={"device": "cpu; touch ran"}, data={"root": "a/{b}"}
    )
    done = project.snakemake("--dry-run", check=False)
    assert done.returncode
    assert "data.root: holds {b}, which the workflow would replace" in done.stdout + done.stderr
    assert not list(project.root.rglob("ran"))
    assert not (project.root.parent / "elsewhere").exists()


@pytest.mark.skipif(torch_has_cuda(), reason="this torch has CUDA")
def test_a_gpu_that_torch_cannot_use_stops_before_any_job(project: Project) -> None:
    project.configure(compute={"device": "cuda:1"})
    done = project.snakemake("--dry-run", check=False)
    assert done.returncode == 1
    text = done.stdout + done.stderr
    assert "no GPU: this torch has no CUDA; set compute.device to cpu or auto (it is cuda" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--dry-run", "--", "results/tiny/masks/trian"],
            "error: results/tiny/masks/trian: no rule has this name, and none makes such a file "
            "with this configuration; did you mean results/tiny/masks/train/1-of-2.h5? snakemake "
            "--list-target-rules lists the rules",
        ),
        (["--", "al"], "error: al: no rule has this name, and none makes such a file"),
        (
            ["--", "results/tiny/submission/comp6_multi.tgz"],
            "error: voc/ImageSets/Segmentation/test.txt: no such file; the rule test_images reads",
        ),
    ],
)
def test_what_cannot_be_made_is_one_line(
    project: Project, arguments: list[str], message: str
) -> None:
    project.configure(data={"kind": "voc", "root": "voc"}, retrain={"init": "random"})
    done = project.snakemake(*arguments, check=False)
    assert done.returncode == 1
    assert message in (done.stdout + done.stderr).splitlines()[-1]


def test_snakemake_runs_templates_of_its_configuration(project: Project, tmp_path: Path) -> None:
    """docs/explanation/security.md warns of this: Snakemake runs them before any code of ours.

    `wsss config check` refuses such a file; the warning can go once Snakemake stops doing this.
    """
    bad = tmp_path / "bad.yaml"
    bad.write_text(f"__use_yte__: true\nname: ?open({str(tmp_path / 'ran')!r}, 'w').name[-3:]\n")
    project.snakemake("--configfile", str(bad), "--dry-run", check=False)
    assert (tmp_path / "ran").exists()
    checked = project.wsss("config", "check", "--config", str(bad))
    assert "__use_yte__: unknown key" in checked.communicate()[0]
    assert checked.returncode == 1
