import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.data.conftest import picture, write_xml
from wsss.__main__ import app
from wsss.config.load import from_mapping
from wsss.config.model import Config
from wsss.data.datasets.coco import CATEGORY_IDS
from wsss.data.datasets.words import COCO_NAMES
from wsss.data.errors import DataError
from wsss.data.ingest.stage import ingest
from wsss.data.manifest_folder import load
from wsss.score.truth.errors import TruthError
from wsss.score.truth.mask_tags import write_mask_tags

from ..conftest import save_mask

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SUBSET = Path(__file__).parents[3] / os.environ.get("WSSS_SHARED", "../shared") / "data/voc-subset"


def mask(*labels: int) -> np.ndarray:
    label_map = np.zeros((12, 16), np.uint8)
    for column, label in enumerate(labels):
        label_map[3:6, column] = label
    return label_map


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Annotations and masks that differ: a and b by one object each, c not, e has no object."""
    root = tmp_path / "VOC2012"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    objects = {"a": ["dog", "cat"], "b": ["cat"], "c": ["person"], "d": ["cat"], "e": ["dog"]}
    for seed, (image, names) in enumerate(objects.items()):
        Image.fromarray(picture(seed)).save(root / "JPEGImages" / f"{image}.jpg")
        write_xml(root, image, names)
    labels = {"a": mask(8, 255), "b": mask(15, 8), "c": mask(255, 15), "e": mask(255)}
    for image, array in labels.items():
        save_mask(root / "SegmentationClassAug" / f"{image}.png", array)
    save_mask(root / "SegmentationClass" / "d.png", mask(8))
    lists = root / "ImageSets/Segmentation"
    (lists / "trainaug.txt").write_text("a\nb\nc\ne\n")
    (lists / "val.txt").write_text("d\n")
    return root


def config(root: Path, **data: object) -> Config:
    given = {"kind": "voc", "root": str(root), "train_list": "trainaug", "tags": "masks"} | data
    return from_mapping({"data": {**given, "quarantine_limit": 0.5}, "compute": {"workers": 1}})


def test_tags_are_the_labels_that_occur(voc: Path, tmp_path: Path) -> None:
    report = write_mask_tags(config(voc).data, tmp_path / "tags.csv", workers=1)
    with (tmp_path / "tags.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["image"]: row["tags"] for row in rows} == {
        "a": "cat", "b": "cat;person", "c": "person", "e": "", "d": "cat",
    }  # fmt: skip
    assert rows[0]["source"] == "pixel labels in SegmentationClassAug"
    assert rows[-1]["source"] == "pixel labels in SegmentationClass"
    assert (report.images, report.untagged, report.compared) == (5, 1, 5)
    assert (report.only_annotated, report.only_masks) == (2, 1)  # a, e; b
    assert "2 have an object there that the mask lacks, 1 one in the mask" in str(report)


def _ingest(config: Config, out: Path) -> None:
    ingest(out, variant=config.variant, data=config.data, compute=config.compute)


def test_ingest_takes_the_table_and_never_the_masks(voc: Path, tmp_path: Path) -> None:
    out = tmp_path / "manifest"
    with pytest.raises(DataError, match=r"mask-tags\.csv: not there, but data\.tags is masks"):
        _ingest(config(voc), out)
    write_mask_tags(config(voc).data, out / "mask-tags.csv", workers=1)
    for name in ("SegmentationClass", "SegmentationClassAug"):
        (voc / name).rename(voc / f"{name} away")
    _ingest(config(voc), out)
    manifest, classes = load(out)
    tags = {sample.id: [classes.names[index] for index in sample.tags] for sample in manifest}
    assert tags == {"a": ["cat"], "b": ["cat", "person"], "c": ["person"], "d": ["cat"]}
    _ingest(config(voc, tags="xml"), out)
    manifest, classes = load(out)
    tags = {sample.id: [classes.names[index] for index in sample.tags] for sample in manifest}
    assert tags["a"] == ["dog", "cat"]
    assert tags["e"] == ["dog"]


def test_missing_and_foreign_masks_are_listed_together(voc: Path, tmp_path: Path) -> None:
    out = tmp_path / "tags.csv"
    for image in "ab":
        (voc / "SegmentationClassAug" / f"{image}.png").unlink()
    with pytest.raises(TruthError, match=r"2 masks are missing: .*a\.png; .*b\.png"):
        write_mask_tags(config(voc).data, out, workers=1)
    save_mask(voc / "SegmentationClassAug" / "a.png", mask(21))
    (voc / "SegmentationClassAug" / "b.png").write_text("no mask")
    with pytest.raises(TruthError, match=r"2 masks cannot be read: .*holds label 21, expected"):
        write_mask_tags(config(voc).data, out, workers=1)
    assert not out.exists()


def test_only_voc_and_coco_have_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="for voc and coco only"):
        write_mask_tags(from_mapping({}).data, tmp_path / "tags.csv", workers=1)
    with pytest.raises(ValueError, match=r"data\.tags: masks is for kinds voc and coco"):
        from_mapping({"data": {"kind": "folder", "tags": "masks"}})


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Of three images, the first shows a cat and a dog in the same place, the second a crowd."""
    root = tmp_path / "coco2014"
    whole = [[0, 0, 16, 0, 16, 12, 0, 12]]
    crowd = {"counts": [0, 24, 168], "size": [12, 16]}
    shared = {"iscrowd": 0, "segmentation": whole}
    instances = [
        {"id": 1, "image_id": 0, "category_id": 17, "area": 9.0} | shared,
        {"id": 2, "image_id": 0, "category_id": 18, "area": 8.0} | shared,
        {"id": 3, "image_id": 1, "category_id": 1, "iscrowd": 1, "segmentation": crowd},
    ]
    images = []
    for n in range(3):
        path = root / f"train2014/COCO_train2014_{n}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(n)).resize((16, 12)).save(path)
        images.append({"id": n, "file_name": path.name, "height": 12, "width": 16})
    categories = [{"id": i, "name": n} for i, n in zip(CATEGORY_IDS, COCO_NAMES, strict=True)]
    content = {"images": images, "annotations": instances, "categories": categories}
    (root / "annotations").mkdir()
    (root / "annotations/instances_train2014.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("voc_style", ["dog", "person", ""]),
        ("weakclip", ["cat", "person", ""]),
        ("crowd_void", ["dog", "", ""]),
        ("png", ["toothbrush", "", ""]),
    ],
)
def test_tags_of_coco_are_what_its_rule_shows(
    coco: Path, tmp_path: Path, rule: str, expected: list[str]
) -> None:
    data = {"kind": "coco", "root": str(coco), "val_list": "", "tags": "masks", "coco_truth": rule}
    if rule == "png":
        data["masks"] = str(tmp_path / "theirs")
        for n, labels in enumerate(((80,), (), (255,))):
            save_mask(tmp_path / f"theirs/train2014/COCO_train2014_{n}.png", mask(*labels))
    sections = {"cams": {"splits": ["train"]}, "compute": {"workers": 1}}
    given = from_mapping({"data": data | {"quarantine_limit": 0.9}} | sections)
    out = tmp_path / "manifest"
    report = write_mask_tags(given.data, out / "mask-tags.csv", workers=1)
    with (out / "mask-tags.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["image"], row["tags"]) for row in rows] == [
        (f"COCO_train2014_{n}", tags) for n, tags in enumerate(expected)
    ]
    assert rows[0]["source"] == f"pixel labels, {rule}"
    assert report.compared == 2
    _ingest(given, out)  # reads the table, not the annotations
    manifest, classes = load(out)
    tags = {sample.id: [classes.names[index] for index in sample.tags] for sample in manifest}
    assert tags == {f"COCO_train2014_{n}": [tag] for n, tag in enumerate(expected) if tag}


@pytest.mark.skipif(not SUBSET.is_dir(), reason="WSSS_SHARED has no data/voc-subset")
def test_the_subsets_table_is_that_of_its_masks(tmp_path: Path) -> None:
    given = tmp_path / "config.yaml"
    given.write_text(f"data: {{kind: voc, root: '{SUBSET.resolve()}'}}")
    out = tmp_path / "tags.csv"
    done = CliRunner().invoke(app, ["truth", "tags", "--config", str(given), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "600 images" in done.output
    with out.open(newline="") as stream:
        tags = {row["image"]: set(row["tags"].split(";")) for row in csv.DictReader(stream)}
    with (SUBSET / "tags.csv").open(newline="") as stream:
        rows = csv.DictReader(stream, delimiter=";")
        assert tags == {row["image"]: set(row["classes"].split()) for row in rows}
