"""Real photographs: counts and tags of the shared subsets."""

import json
import os
import re
from collections import Counter
from pathlib import Path

import pytest

from wsss.config.data import DataConfig
from wsss.data.datasets.candidates import Dataset
from wsss.data.datasets.classes import class_list
from wsss.data.datasets.coco import CATEGORY_IDS, CLASS_OF_CATEGORY, load_instances
from wsss.data.datasets.registry import read_dataset
from wsss.data.images.read import inspect_image, read_image

ROOT = Path(__file__).parents[2]
SHARED = ROOT / os.environ.get("WSSS_SHARED", "../shared") / "data"
VOC, COCO = SHARED / "voc-subset", SHARED / "coco-subset"
needs_voc = pytest.mark.skipif(not VOC.is_dir(), reason="WSSS_SHARED has no data/voc-subset")
needs_coco = pytest.mark.skipif(not COCO.is_dir(), reason="WSSS_SHARED has no data/coco-subset")


def per_class(dataset: Dataset) -> dict[str, tuple[int, int]]:
    """Class → images of (train, val)."""
    counts = Counter((image.split, tag) for image in dataset.candidates for tag in image.tags)
    return {
        name: (counts["train", index], counts["val", index])
        for index, name in enumerate(dataset.classes.names)
    }


def readme_counts(path: Path) -> dict[str, tuple[int, int]]:
    """The README's tables of images per class, also where two share a line."""
    triples = re.findall(r"\| ([a-z][a-z ]+) \| (\d+) \| (\d+) ", path.read_text())
    return {name: (int(train), int(val)) for name, train, val in triples}


@pytest.mark.parametrize(
    ("kind", "root", "tags", "images"),
    [
        pytest.param("voc", VOC, "tags.csv", 300, marks=needs_voc),
        pytest.param("coco", COCO, "auto", 150, marks=needs_coco),
    ],
)
def test_counts_are_the_readmes(kind: str, root: Path, tags: str, images: int) -> None:
    data = DataConfig.model_validate({"kind": kind, "root": str(root), "tags": tags})
    dataset = read_dataset(data)
    splits = Counter(image.split for image in dataset.candidates)
    assert splits == {"train": images, "val": images}
    assert not [image for image in dataset.candidates if image.problem or not image.tags]
    assert per_class(dataset) == readme_counts(root / "README.md")


@needs_coco
@pytest.mark.parametrize("part", ["train", "val"])
def test_class_map_is_the_jsons_categories(part: str) -> None:
    path = COCO / "annotations" / f"instances_{part}2014.json"
    categories = json.loads(path.read_text())["categories"]
    names = class_list("coco").names
    assert [category["id"] for category in categories] == list(CATEGORY_IDS)
    assert {c["id"]: c["name"] for c in categories} == {
        category: names[index] for category, index in CLASS_OF_CATEGORY.items()
    }


@needs_coco
def test_sizes_are_the_jsons() -> None:
    content = load_instances(COCO / "annotations" / "instances_val2014.json")
    for image in content.images[:20]:
        facts = inspect_image(COCO / "val2014" / image["file_name"])
        assert (facts.width, facts.height) == (image["width"], image["height"])


@needs_voc
def test_a_photograph() -> None:
    array = read_image(VOC / "JPEGImages" / "2007_000032.jpg")
    assert array.shape == (281, 500, 3)
    assert 40 < array.mean() < 220
