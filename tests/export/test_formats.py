"""Every format, read back by decoders that were written from its documentation."""

import csv
import json
import re
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools.coco import COCO

from .conftest import NAMES, Results

Maps = dict[tuple[str, str], np.ndarray]
POLYGONS_FIT = {0.0: (1.0, 1.0), 0.5: (0.98, 0.96), 1.0: (0.94, 0.89)}
"""Mean and lowest IoU by tolerance. Measured with 0.5: 0.988 and 0.978, with 1: 0.952 and 0.908."""


def assert_equal(maps: Maps, expected: Maps) -> None:
    assert maps.keys() == expected.keys()
    for key, labels in expected.items():
        np.testing.assert_array_equal(maps[key], labels, err_msg=str(key))


def without_unsure(maps: Maps) -> Maps:
    return {key: np.where(labels == 255, 0, labels) for key, labels in maps.items()}


def check_photo(path: Path, labels: np.ndarray) -> None:
    """A photo must be upright for a reader that knows nothing of EXIF."""
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    assert pixels.shape[:2] == labels.shape
    assert np.abs(pixels[:, :, 2] - labels * 60.0).mean() < 20  # red tells the label


def read_coco(folder: Path) -> Maps:
    maps = {}
    for split in ("train", "val"):
        coco = COCO(folder / f"annotations/instances_{split}.json")
        assert tuple(c["name"] for c in coco.loadCats(coco.getCatIds())) == NAMES
        for image in coco.loadImgs(coco.getImgIds()):
            labels = np.zeros((image["height"], image["width"]), np.uint8)
            for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
                mask = coco.annToMask(annotation)
                labels[mask > 0] = annotation["category_id"]
                assert annotation["area"] == mask.sum() or annotation["segmentation"][0]
                ys, xs = np.nonzero(mask)
                if isinstance(annotation["segmentation"], dict):
                    left, top, width, height = annotation["bbox"]
                    assert (left, top) == (xs.min(), ys.min())
                    assert (left + width - 1, top + height - 1) == (xs.max(), ys.max())
            maps[split, image["file_name"].removesuffix(".jpg")] = labels
    return maps


def read_yolo(folder: Path, sizes: Maps, *, rounds: bool) -> Maps:
    """As readers fill polygons: whole pixels, rounded or cut off, everything that is touched."""
    maps = {}
    content = yaml.safe_load((folder / "data.yaml").read_text())
    assert content == {
        "train": "images/train", "val": "images/val", "names": dict(enumerate(NAMES))
    }  # fmt: skip
    for (split, image), truth in sizes.items():
        labels = np.zeros(truth.shape, np.uint8)
        name = image.replace("images/", "images_/")
        (photo,) = (folder / f"images/{split}").glob(f"{name}.jpg")
        label_path = "/labels/".join(str(photo).rsplit("/images/", 1))  # Ultralytics' rule
        for line in Path(label_path).with_suffix(".txt").read_text().splitlines():
            index, *numbers = line.split()
            assert len(numbers) >= 6
            assert all(0 <= float(number) <= 1 for number in numbers)
            points = np.array(numbers, float).reshape(-1, 2) * truth.shape[::-1]
            points = np.round(points) if rounds else points
            cv2.fillPoly(labels, [points.astype(np.int32)], int(index) + 1)
        maps[split, image] = labels
    return maps


def unpack(data: list[int]) -> np.ndarray:
    """@thi.ng/rle-pack: decode, bit by bit."""
    bits = "".join(f"{byte:08b}" for byte in data)
    position = 0

    def read(count: int) -> int:
        nonlocal position
        position += count
        return int(bits[position - count : position], 2)

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        equal = read(1)
        length = read(sizes[read(2)]) + 1
        values += [read(word)] * length if equal else [read(word) for _ in range(length)]
    assert len(values) == total
    assert len(bits) - position < 8
    return np.array(values, np.uint8)


def read_label_studio(folder: Path) -> tuple[Maps, list[dict[str, Any]]]:
    maps = {}
    config = ElementTree.parse(folder / "config.xml").getroot()
    (brush,) = config.findall("BrushLabels")
    names = [label.get("value") for label in brush.findall("Label")]
    assert names == [*NAMES, "unsure"]
    assert config.find("Image").get("name") == brush.get("toName") == "image"  # type: ignore[union-attr]
    tasks = json.loads((folder / "tasks.json").read_text())
    for task in tasks:
        data = task["data"]
        photo = unquote(data["image"]).removeprefix("/data/local-files/?d=")
        assert photo == f"images/{data['split']}/{data['id']}.jpg"
        with Image.open(folder / photo) as image:
            labels = np.zeros((image.height, image.width), np.uint8)
        for result in task["predictions"][0]["result"]:
            assert (result["from_name"], result["to_name"]) == (brush.get("name"), "image")
            shape = result["original_height"], result["original_width"]
            flat = unpack(result["value"]["rle"]).reshape(*shape, 4)
            assert np.all(flat == flat[..., :1])
            (name,) = result["value"]["brushlabels"]
            labels[flat[..., 3] == 255] = 255 if name == "unsure" else 1 + names.index(name)
        maps[data["split"], data["id"]] = labels
    return maps, tasks


def read_cvat(path: Path, sizes: Maps) -> Maps:
    split_of = {image: split for split, image in sizes}
    maps = {}
    with zipfile.ZipFile(path) as archive:
        lines = archive.read("labelmap.txt").decode().splitlines()[1:]
        table = {}
        for label, line in enumerate(lines):
            name, colour, parts, actions = line.split(":")
            assert name == ["background", *NAMES, "unsure"][label]
            assert (parts, actions) == ("", "")
            table[tuple(map(int, colour.split(",")))] = 255 if name == "unsure" else label
        ids = archive.read("ImageSets/Segmentation/default.txt").decode().splitlines()
        assert sorted(ids) == sorted(split_of)
        for image in ids:
            with archive.open(f"SegmentationClass/{image}.png") as stream:
                picture = np.array(Image.open(stream))
            assert picture.shape[2] == 3
            labels = np.array([table[tuple(p)] for p in picture.reshape(-1, 3).tolist()], np.uint8)
            maps[split_of[image], image] = labels.reshape(picture.shape[:2])
            with archive.open(f"SegmentationObject/{image}.png") as stream:
                objects = np.array(Image.open(stream))
            both = np.concatenate([picture, objects], axis=2).reshape(-1, 6)
            pairs = set(map(tuple, both.tolist()))
            assert len(pairs) == len(np.unique(labels))  # one object per class
    return maps


def read_folder(folder: Path) -> Maps:
    maps = {}
    with (folder / "classes.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["name"] for row in rows] == ["background", *NAMES, "unsure"]
    assert [row["label"] for row in rows] == ["0", "1", "2", "3", "255"]
    photos = {p.relative_to(folder / "images").with_suffix("") for p in folder.rglob("*.jpg")}
    for path in (folder / "labels").rglob("*.png"):
        name = path.relative_to(folder / "labels").with_suffix("")
        assert name in photos
        with Image.open(path) as image:
            assert image.mode == "P"
            maps[name.parts[0], str(Path(*name.parts[1:]))] = np.array(image)
    assert len(photos) == len(maps)
    return maps


@pytest.mark.slow
@pytest.mark.parametrize("product", ["label", "train"])
def test_lossless_formats_hold_the_very_masks(
    results: Results, product: str, tmp_path: Path
) -> None:
    maps: Maps = getattr(results, "labels" if product == "label" else "train")
    text = results.export("coco", tmp_path / "coco", product=product)
    assert_equal(read_coco(tmp_path / "coco"), without_unsure(maps))
    assert ("unsure (255); this format has no word for them" in text) == (product == "train")
    assert "1 photo stored turned, written upright" in text
    masks = sum(len(set(np.unique(labels)) - {0, 255}) for labels in maps.values())
    assert results.export("label-studio", tmp_path / "ls", product=product).startswith(
        f"Label Studio: 9 images, {masks} masks in "
    )
    assert_equal(read_label_studio(tmp_path / "ls")[0], maps)
    results.export("cvat", tmp_path / "cvat.zip", product=product)
    assert_equal(read_cvat(tmp_path / "cvat.zip", maps), maps)
    report = results.export("cvat", tmp_path / "of.v2", product=product)  # CVAT takes .zip alone
    assert report.splitlines()[0].endswith(f" in {tmp_path}/of.v2.zip")
    assert (tmp_path / "of.v2.zip").read_bytes() == (tmp_path / "cvat.zip").read_bytes()
    results.export("folder", tmp_path / "folder", product=product)
    assert_equal(read_folder(tmp_path / "folder"), maps)
    for split, image in maps:
        for form in ("coco", "ls", "folder"):
            path = tmp_path / form / "images" / split / f"{image}.jpg"
            check_photo(path, results.labels[split, image])


def classwise(maps: Maps, expected: Maps) -> list[float]:
    ious = []
    for key, truth in expected.items():
        for label in set(np.unique(truth).tolist()) - {0}:
            both = (maps[key] == label) & (truth == label)
            ious.append(both.sum() / ((maps[key] == label) | (truth == label)).sum())
    return ious


@pytest.mark.parametrize("tolerance", POLYGONS_FIT)
def test_polygons_lose_what_the_report_says(
    results: Results, tolerance: float, tmp_path: Path
) -> None:
    mean, worst = POLYGONS_FIT[tolerance]
    text = results.export("coco", tmp_path / "c", polygons=True, tolerance=tolerance)
    ious = classwise(read_coco(tmp_path / "c"), results.labels)
    assert np.mean(ious) >= mean
    assert min(ious) >= worst
    reported = re.search(r"IoU of ([\d.]+) on average, ([\d.]+) at worst \((.+), (.+)\)", text)
    assert reported
    assert [float(reported[1]), float(reported[2])] == pytest.approx(
        [np.mean(ious), min(ious)], abs=1e-3
    )
    results.export("yolo", tmp_path / "y", tolerance=tolerance)
    for rounds in (False, True):
        ious = classwise(read_yolo(tmp_path / "y", results.labels, rounds=rounds), results.labels)
        assert np.mean(ious) >= mean
        assert min(ious) >= worst
