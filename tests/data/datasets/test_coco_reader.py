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


def test_tags_of_a_table_replace_those_of_the_json(tmp_path: Path) -> None:
    write(tmp_path, "train", {"a.jpg": [(1, 0)], "b.jpg": [(2, 0)], "c.jpg": [], "d.jpg": [(3, 0)]})
    table = tmp_path / "tags.csv"
    table.write_text("image,tags\na,hair drier;cat\nb,unicorn\nc,dog\n")
    given = {"tags": "tags.csv", "train_list": "train-with-objects", "val_list": ""}
    # The list is that of the JSON: c, which has an object in the table alone, is not on it.
    assert read(tmp_path, **given) == [
        ("a", "train", ["hair drier", "cat"]), ("b", "train", []), ("d", "train", []),
    ]  # fmt: skip
    dataset = read_dataset(DataConfig(kind="coco", root=str(tmp_path), **given))
    assert dataset.candidates[1].problem == "unknown tag 'unicorn'"
    assert dataset.sources[-1] == table
    with pytest.raises(DataError, match=r"data\.tags: xml is for kind voc"):
        read(tmp_path, tags="xml")


def test_lists_of_images_with_objects(tmp_path: Path) -> None:
    write(tmp_path, "train", {"a.jpg": [], "b.jpg": [(1, 0)]})
    write(tmp_path, "val", {"c.jpg": [], "d.jpg": [(2, 1)]})
    images = read(tmp_path, train_list="train-with-objects", val_list="val-with-objects")
    assert images == [("b", "train", ["person"]), ("d", "val", ["bicycle"])]
    assert [image_id for image_id, *_ in read(tmp_path)] == ["a", "b", "c", "d"]


def rewrite(path: Path, part: str, **values: Any) -> None:
    """Set keys of all entries of a part; None removes a key, a function gets the old value."""
    content = json.loads(path.read_text())
    for entry in content[part]:
        for key, value in values.items():
            if value is None:
                entry.pop(key, None)
            else:
                entry[key] = value(entry.get(key)) if callable(value) else value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("annotations", {"id": None}),
        ("annotations", {"iscrowd": None}),
        ("annotations", {"iscrowd": False, "id": "5"}),
        ("annotations", {"image_id": str, "category_id": float}),
        ("annotations", {"image_id": lambda number: f"{number:012d}"}),
        ("images", {"id": str, "width": "30", "height": 20.0}),
        ("images", {"file_name": lambda name: f"train2014/{name}"}),
        ("images", {"file_name": lambda name: f"data\\train2014\\{name}"}),
        ("categories", {"id": str, "name": str.title}),
    ],
)
def test_loose_numbers_and_names_are_read(
    tmp_path: Path, part: str, values: dict[str, Any]
) -> None:
    path = write(tmp_path, "train", {"a.jpg": [(1, 0), (90, 0)], "b.jpg": [(2, 0)]})
    rewrite(path, "images", width=30, height=20)
    rewrite(path, part, **values)
    dataset = read_dataset(DataConfig(kind="coco", root=str(tmp_path), val_list=""))
    assert [(image.id, image.tags) for image in dataset.candidates] == [("a", (0, 79)), ("b", (1,))]
    assert dataset.candidates[0].path == tmp_path / "train2014" / "a.jpg"
    content = load_instances(path)
    assert all((image["width"], image["height"]) == (30, 20) for image in content.images)
    assert all(type(a["id"]) is int for entries in content.annotations.values() for a in entries)
    assert not any(a.get("iscrowd") for entries in content.annotations.values() for a in entries)


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("annotations", {"image_id": None}, "annotation 0 has no image_id"),
        ("annotations", {"image_id": "a.jpg"}, "annotation 0 has 'a.jpg' as image_id, no whole"),
        ("annotations", {"image_id": 99}, "3 of 3 annotations belong to none of its 2 images"),
        ("annotations", {"category_id": None}, "annotation 0 has no category_id"),
        ("images", {"id": 7}, "image 1 has an id or a file_name that another image has"),
        ("images", {"file_name": "a.jpg"}, "image 1 has an id or a file_name that another"),
        ("images", {"width": 30.5}, "image 0 has '30.5' as width"),
        ("categories", {"id": lambda number: number + 1}, "but category 2 is 'person'"),
    ],
)
def test_one_message_names_what_is_wrong(
    tmp_path: Path, part: str, values: dict[str, Any], message: str
) -> None:
    path = write(tmp_path, "train", {"a.jpg": [(1, 0), (90, 0)], "b.jpg": [(2, 0)]})
    rewrite(path, part, **values)
    with pytest.raises(DataError, match=rf"instances_train2014\.json: .*{message}"):
        read(tmp_path, val_list="")


def test_annotations_of_no_image_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, "train", {"a.jpg": [(1, 0)]})
    content = json.loads(path.read_text())
    content["annotations"].append({"id": 5, "image_id": 99, "category_id": 1})
    path.write_text(json.dumps(content))
    assert read(tmp_path, val_list="") == [("a", "train", ["person"])]
    (record,) = caplog.records
    assert "1 of 2 annotations belong to none of its 1 images, e.g. image_id 99" in record.message


@pytest.mark.parametrize(
    ("text", "warnings"),
    [
        ("a 0 79\nb 1\n", 0),
        ("a.jpg\t79 0\nb.jpg\t1\n", 0),
        ("/data/train2014/a.jpg\nC:\\data\\b.jpg\n", 0),
        ("a 1 80\nb 2\n", 2),
        ("a 0 79\nb 1 2\n", 1),
    ],
)
def test_lists_with_class_numbers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, warnings: int
) -> None:
    """CLIP-ES's `coco14/train.txt`; the JSON says what the tags are."""
    write(tmp_path, "train", {"a.jpg": [(1, 0), (90, 0)], "b.jpg": [(2, 0)]})
    (tmp_path / "list.txt").write_text(text)
    images = read(tmp_path, train_list="list.txt", val_list="")
    assert images == [("a", "train", ["person", "toothbrush"]), ("b", "train", ["bicycle"])]
    assert [f"in {warnings} of 2 lines" in record.message for record in caplog.records] == [
        True
    ] * (warnings > 0)
