"""Rules that make pixel labels in other forms, or pack predictions: dry runs."""

from __future__ import annotations

import pytest
from PIL import Image

from .conftest import CONFIG, Project, copy_project

pytestmark = pytest.mark.workflow
NAME = CONFIG["name"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with the files that the rules look at, and nothing made."""
    project = copy_project(tmp_path_factory.mktemp("rules"))
    for path in (
        "coco/annotations/instances_train2014.json",
        "coco/annotations/instances_val2014.json",
    ):
        (project.root / path).parent.mkdir(parents=True, exist_ok=True)
        (project.root / path).write_text("{}")
    lists = project.root / "VOC2012/ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for name in ("train", "val", "test"):
        (lists / f"{name}.txt").write_text(f"{name}\n")
    images = project.root / "VOC2012/JPEGImages"
    images.mkdir()
    Image.new("RGB", (4, 4)).save(images / "test.jpg")
    return project


def test_cocos_masks_are_drawn_before_scoring(project: Project) -> None:
    data = {"kind": "coco", "root": "coco", "masks": "results/coco-masks", "val_list": "val"}
    project.configure(data=data)
    dry = project.snakemake("--dry-run", f"results/{NAME}/scores/blob.val.json").stdout
    assert "results/coco-masks/val2014.json" in dry
    assert "results/coco-masks/train2014.json" not in dry  # the other part is not scored
    project.configure(data=data | {"masks": ""})
    assert (
        "coco_masks"
        not in project.snakemake("--dry-run", f"results/{NAME}/scores/blob.val.json").stdout
    )


def test_tags_of_masks_come_before_ingest(project: Project) -> None:
    project.configure(data={"kind": "voc", "root": "VOC2012", "tags": "masks"})
    dry = project.snakemake("--dry-run", f"results/{NAME}/manifest/manifest.csv").stdout
    assert dry.index("rule mask_tags") < dry.index("rule ingest")


def test_a_submission_trains_nothing_for_itself(project: Project) -> None:
    project.configure(data={"kind": "voc", "root": "VOC2012", "tags": "xml"})
    dry = project.snakemake("--dry-run", f"results/{NAME}/submission/comp6_multi_crf.tgz").stdout
    assert "rule test_images" in dry
    assert f"results/{NAME}/predictions/test/1-of-2.h5" in dry
    assert f"results/{NAME}/test/manifest.csv" in dry
    assert "score" not in dry
