"""Files that no rule lists: what a run does when one of them changed since the last run."""

import csv
import os
import shutil
from pathlib import Path

import pytest

from wsss.config.model import DEMO
from wsss.demo.dataset import generate

from .conftest import Project, copy_project, jobs

pytestmark = [pytest.mark.workflow, pytest.mark.slow]
MASKS, MANIFEST = "results/voc/masks/train/1-of-1.h5", "results/voc/manifest/manifest.csv"
OLDER = (10**18, 10**18)
WEIGHTS = "demo-vit-p8.safetensors"
CONFIG = {
    "name": "voc",
    "shards": 1,
    "data": {"kind": "voc", "root": "voc", "val_list": ""},
    "clip": DEMO["clip"] | {"long_side": 64, "pretrained": f"${{TEST_WEIGHTS}}/{WEIGHTS}"},
    "cams": {"splits": ["train"], "affinity": {"enabled": False}},
    "masks": {"crf": {"enabled": False}},
    "refine": {"method": "none"},
    "retrain": {"enabled": False},
}


def replace(path: Path, content: bytes) -> None:
    """By an older file."""
    path.unlink()
    path.write_bytes(content)
    os.utime(path, ns=OLDER)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after a run up to the masks; its data folder and weights are links."""
    project = copy_project(tmp_path_factory.mktemp("watched"))
    project.configure(**CONFIG)
    data = project.root / "data"
    generate(data, train=2, val=1)
    (data / "Annotations").mkdir()
    for name in ("train_0000", "train_0001"):
        tag = "<annotation><object><name>cat</name></object></annotation>"
        (data / f"Annotations/{name}.xml").write_text(tag)
    (project.root / "voc").symlink_to("data")
    for folder in ("one", "two"):
        shutil.copytree(project.root / "wsss/demo/weights", project.root / folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_WEIGHTS", str(project.root / "one"))
        project.snakemake("--", MASKS)
    return project


@pytest.fixture(autouse=True)
def _weights(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_WEIGHTS", str(project.root / "one"))


def test_a_link_to_a_fresh_copy_of_the_data_reruns_nothing(project: Project) -> None:
    shutil.copytree(project.root / "data", project.root / "copy", copy_function=shutil.copyfile)
    (project.root / "voc").unlink()
    (project.root / "voc").symlink_to("copy")
    assert not project.would_run(MASKS)


def test_other_weights_behind_a_variable_rerun_the_cams(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_WEIGHTS", str(project.root / "two"))
    assert project.would_run(MASKS) == {"cams": 1, "masks": 1}


def test_older_weights_of_the_same_size_rerun_the_cams(project: Project) -> None:
    weights = project.root / "one" / WEIGHTS
    content = weights.read_bytes()
    replace(weights, content[:-1] + bytes([content[-1] ^ 1]))
    rules = project.would_run(MASKS)
    replace(weights, content)
    assert rules == {"cams": 1, "masks": 1}


def test_another_version_of_a_package_reruns_what_uses_it(project: Project) -> None:
    facts = project.root / "pydensecrf2-99.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: pydensecrf2\nVersion: 99\n")
    rules = project.would_run(MASKS)
    shutil.rmtree(facts)
    assert rules == {"masks": 1}


def test_a_photo_and_an_annotation_that_are_replaced_by_older_ones(project: Project) -> None:
    photos, annotations = (project.root / "voc" / name for name in ("JPEGImages", "Annotations"))
    replace(photos / "train_0000.jpg", (photos / "train_0001.jpg").read_bytes())
    xml = annotations / "train_0001.xml"
    replace(xml, xml.read_bytes().replace(b"cat", b"dog"))
    project.snakemake("--", MANIFEST)
    with (project.root / MANIFEST).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["tags"] for row in rows] == ["cat", "dog"]
    assert rows[0]["digest"] == rows[1]["digest"]
    assert not project.would_run(MANIFEST)


def test_what_is_missing_behind_a_mark_is_made_again(finished: Project) -> None:
    """A dry run says so, and changes nothing."""
    gone = [
        next(finished.results.glob("masks/train/png/1-of-2/label/*.png")),
        finished.root / "results/tiny-data/JPEGImages/train_0000.jpg",
    ]
    contents = [path.read_bytes() for path in gone]
    times = [(path.stat().st_atime_ns, path.stat().st_mtime_ns) for path in gone]
    for path in gone:
        path.unlink()
    before = _snapshot(finished.root / "results")
    done = finished.snakemake("--dry-run")
    finished.snakemake("--list-rules")
    after = _snapshot(finished.root / "results")
    for path, content, ns in zip(gone, contents, times, strict=True):
        path.write_bytes(content)
        os.utime(path, ns=ns)
    assert after == before
    shown = done.stdout + done.stderr
    for mark in ("results/tiny/masks/train/png/1-of-2.json", "results/tiny-data/demo.json"):
        assert f"{mark}: files that it stands for are missing" in shown
    rules = jobs(done.stdout)
    assert rules["demo_data"] == 1
    assert rules["masks"] == 4
    assert not finished.would_run()


def _snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file and folder."""
    paths = {str(path): path.stat() for path in folder.rglob("*")}
    return {name: (status.st_size, status.st_mtime_ns) for name, status in paths.items()}
