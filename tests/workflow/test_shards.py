"""`shards: auto` in the workflow: what the engine decides, its jobs follow, and a run keeps."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss.compute.planned_gpus import PLANNED_GPUS

from .conftest import RUN, Project, copy_project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

_PHOTOS = 7  # two parts on a CPU, one on a GPU: in this copy of the project a part has few
_LIMIT = "IMAGES_PER_PART: Final = {}\n"
_CAMS = Path(f"results/{RUN}/cams/train")
_CLUSTER = ("--executor", "cluster-generic", "--latency-wait", "5", "--jobs", "1")
_GPU = ("--set-resources", "cams:gpu=1")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project of more tiny photos in a folder than a part has."""
    project = copy_project(tmp_path_factory.mktemp("shards"))
    source = project.root / "wsss/compute/shards.py"
    text = source.read_text()
    assert _LIMIT.format(670) in text
    source.write_text(text.replace(_LIMIT.format(670), _LIMIT.format(_PHOTOS - 1)))
    photos = project.root / "photos"
    photos.mkdir()
    rows = ["image,tags"]
    for number, colours in enumerate(
        np.random.default_rng(0).integers(0, 255, (_PHOTOS, 16, 16, 3), np.uint8)
    ):
        Image.fromarray(colours).save(photos / f"{number}.png")
        rows.append(f"{number}.png,{('cat', 'dog', 'bird')[number % 3]}")
    (photos / "tags.csv").write_text("\n".join(rows))
    project.configure(
        shards="auto",
        data={"kind": "folder", "root": "photos", "val_list": ""},
        cams={"splits": ["train"], "affinity": {"enabled": False}},
        refine={"method": "none"},
        retrain={"enabled": False},
        compute={"workers": 1},
    )
    return project


def test_parts_follow_the_machine_until_a_run_has_some(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PLANNED_GPUS, raising=False)
    for arguments, count in (
        ((), 2),
        (("--profile", "workflow/profiles/slurm"), 2),
        (("--profile", "workflow/profiles/slurm-gpu"), 1),
    ):
        assert project.would_run(*arguments)["cams"] == count, arguments
    monkeypatch.setenv(PLANNED_GPUS, "1")
    assert project.would_run()["cams"] == 1

    monkeypatch.setenv(PLANNED_GPUS, "0")
    parts = [f"{_CAMS}/{part}-of-2.h5" for part in (1, 2)]
    project.snakemake("--", *parts)
    monkeypatch.setenv(PLANNED_GPUS, "1")
    assert not project.would_run("--", *parts)
    planned = project.would_run()
    assert "cams" not in planned
    assert planned["masks"] == 2


def test_other_parts_take_every_image_over(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a cluster whose engine has no GPU, and whose jobs have one, as their request says."""
    monkeypatch.setenv(PLANNED_GPUS, "0")
    project.snakemake("--", *(f"{_CAMS}/{part}-of-2.h5" for part in (1, 2)))
    for part in (project.root / _CAMS).glob("*.h5"):
        part.unlink()
    monkeypatch.delenv(PLANNED_GPUS)
    submit = tmp_path / "submit.py"
    submit.write_text(
        "import subprocess, sys\n"
        "subprocess.run([sys.argv[1]], stdout=sys.stderr, check=False)\nprint(1)\n"
    )
    project.snakemake(
        *(*_CLUSTER, *_GPU, "--seconds-between-status-checks", "1"),
        *("--cluster-generic-submit-cmd", f"{sys.executable} {submit}"),
        *("--", f"{_CAMS}/1-of-1.h5"),
    )
    log = (project.root / f"results/{RUN}/logs/cams/train.1-of-1.log").read_text()
    assert f"{_PHOTOS} images: {_PHOTOS} reused, 0 computed" in log
    assert sorted(path.name for path in (project.root / _CAMS).glob("*.h5")) == ["1-of-1.h5"]
