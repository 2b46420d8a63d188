"""Rules that make pixel labels in other forms, or pack predictions: dry runs."""

import pytest
from PIL import Image

from .conftest import CONFIG, Project, copy_project, jobs

pytestmark = pytest.mark.workflow
NAME = CONFIG["name"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with the files that the rules read, and no output."""
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
    data = {"kind": "coco", "root": "coco", "masks": "results/coco-masks"}
    project.configure(data=data)
    target = f"results/{NAME}/scores/blob.val.json"  # the other part is not needed
    assert project.would_run(target) == {"ingest": 1, "coco_masks": 1, "score_blob": 1}


def test_pngs_of_others_are_not_drawn(project: Project) -> None:
    masks = project.root / "theirs/val2014"
    masks.mkdir(parents=True)
    Image.new("L", (4, 4)).save(masks / "000000000042.png")
    project.configure(data={"kind": "coco", "root": "coco", "masks": "theirs", "coco_truth": "png"})
    target = f"results/{NAME}/scores/blob.val.json"
    assert project.would_run(target) == {"ingest": 1, "score_blob": 1}


def test_tags_of_cocos_masks_come_from_what_is_drawn(project: Project) -> None:
    data = {
        "kind": "coco",
        "root": "coco",
        "masks": "results/coco-masks",
        "coco_truth": "voc_style",
    }
    project.configure(data=data | {"tags": "masks"})
    dry = project.snakemake("--dry-run", f"results/{NAME}/manifest/manifest.csv").stdout
    assert jobs(dry) == {"ingest": 1, "mask_tags": 1, "coco_masks": 2}
    assert "results/coco-masks/voc_style/train2014.json" in dry


def test_tags_of_masks_come_before_ingest(project: Project) -> None:
    project.configure(data={"kind": "voc", "root": "VOC2012", "tags": "masks"})
    target = f"results/{NAME}/manifest/manifest.csv"
    assert project.would_run(target) == {"ingest": 1, "mask_tags": 1}


def test_a_submission_needs_the_trained_segmenter_and_no_truth(project: Project) -> None:
    project.configure(data={"kind": "voc", "root": "VOC2012"})
    planned = project.would_run(f"results/{NAME}/submission/comp6_multi_crf.tgz")
    assert planned["test_images"] == planned["retrain"] == planned["voc_submission"] == 1
    assert planned["predict"] == 2  # the shards of test, not of val
    assert not [rule for rule in planned if rule.startswith("score")]
