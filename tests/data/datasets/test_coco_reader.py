import json
from pathlib import Path
from typing import Any

import pytest

from wsss.config.data import DataConfig
from wsss.data.datasets.coco import CATEGORY_IDS, load_instances
from wsss.data.datasets.registry import read_dataset
from wsss.data.datasets.words import COCO_NAMES
from wsss.data.errors import DataError

CATEGORIES = [
    {"id": category, "name": name} for category, name in zip(CATEGORY_IDS, COCO_NAMES, strict=True)
]


def write(root: Path, part: str, instances: dict[str, list[tuple[int, int]]], **other: Any) -> Path:
    """Write an instances JSON from {file name: [(category id, crowd)]}."""
    images = [{"id": 7 + n, "file_name": name} for n, name in enumerate(instances)]
    annotations = [
        {"id": 100 * n + m, "image_id": 7 + n, "category_id": category, "iscrowd": crowd,
         "segmentation": [[0, 0, 4, 0, 4, 4]]}
        for n, categories in enumerate(instances.values())
        for m, (category, crowd) in enumerate(categories)
    ]  # fmt: skip
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES} | other
    path = root / "annotations" / f"instances_{part}2014.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def read(root: Path, **data: str) -> list[tuple[str, str, list[str]]]:
    dataset = read_dataset(DataConfig(kind="coco", root=str(root), **data))
    names = dataset.classes.names
    return [(image.id, image.split, [names[i] for i in image.tags]) for image in dataset.candidates]


def test_tags_are_categories_in_order_with_crowds(tmp_path: Path) -> None:
    write(tmp_path, "train", {"b.jpg": [(90, 0), (1, 1), (90, 0)], "a.jpg": []})
    write(tmp_path, "val", {"c.jpg": [(13, 0)]})
    assert read(tmp_path) == [
        ("b", "train", ["toothbrush", "person"]),
        ("a", "train", []),
        ("c", "val", ["stop sign"]),
    ]


def test_paths_and_no_held_out_part(tmp_path: Path) -> None:
    write(tmp_path, "train", {"b.jpg": [(1, 0)]})
    dataset = read_dataset(DataConfig(kind="coco", root=str(tmp_path), val_list=""))
    assert [image.path for image in dataset.candidates] == [tmp_path / "train2014" / "b.jpg"]


def test_a_list_picks_and_orders(tmp_path: Path) -> None:
    write(tmp_path, "train", {"a.jpg": [(1, 0)], "b.jpg": [(2, 0)]})
    write(tmp_path, "val", {"c.jpg": [(3, 0)]})
    (tmp_path / "mine.txt").write_text("c.jpg\na\n")
    images = read(tmp_path, train_list=str(tmp_path / "mine.txt"), val_list="")
    assert images == [("c", "train", ["car"]), ("a", "train", ["person"])]
    (tmp_path / "mine.txt").write_text("z.jpg\n")
    with pytest.raises(DataError, match=r"mine\.txt: 1 of its 1 images are in no instances"):
        read(tmp_path, train_list="mine.txt")


def test_shapes_are_preserved_only_on_request(tmp_path: Path) -> None:
    path = write(tmp_path, "train", {"a.jpg": [(1, 0)]})
    assert "segmentation" not in load_instances(path).annotations[7][0]
    assert load_instances(path, shapes=True).annotations[7][0]["segmentation"] == [
        [0, 0, 4, 0, 4, 4]
    ]
    assert load_instances(path) is load_instances(path)


def test_tables_are_for_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="use kind folder for a CSV"):
        read(tmp_path, tags="tags.csv")


def test_lists_of_images_with_objects(tmp_path: Path) -> None:
    write(tmp_path, "train", {"a.jpg": [], "b.jpg": [(1, 0)]})
    write(tmp_path, "val", {"c.jpg": [], "d.jpg": [(2, 1)]})
    images = read(tmp_path, train_list="train-with-objects", val_list="val-with-objects")
    assert images == [("b", "train", ["person"]), ("d", "val", ["bicycle"])]
    assert [image_id for image_id, *_ in read(tmp_path)] == ["a", "b", "c", "d"]
