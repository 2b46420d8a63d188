"""Bad annotations: VOC's XML, COCO's instances JSON, masks."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as rle

from wsss.data.datasets.coco import CATEGORY_IDS, load_instances
from wsss.data.datasets.words import COCO_NAMES
from wsss.data.errors import DataError
from wsss.data.images.label_png import save_label_png
from wsss.data.images.rle import run_lengths
from wsss.score.truth.coco import draw
from wsss.score.truth.errors import TruthError

from .conftest import Folder, photo
from .harness import message_in_child, wsss

LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "lol"}">' for n in range(12))

XML: dict[str, tuple[str | bytes | None, str]] = {
    "laughs": (
        f"<!DOCTYPE a [{LAUGHS}]><annotation><object><name>&l11;</name></object></annotation>",
        "it defines a document type 'a', which no annotation has",
    ),
    "another file": (
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]>'
        "<annotation><object><name>&x;</name></object></annotation>",
        "it defines a document type",
    ),
    "another host": (
        '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/a.dtd"><annotation/>',
        "it defines a document type",
    ),
    "laughs in UTF-16": (
        f"<!DOCTYPE a [{LAUGHS}]><annotation>&l11;</annotation>".encode("utf-16"),
        "it defines a document type",
    ),
    "half": ("<annotation><object>", "cannot be read as XML"),
    "empty": ("", "cannot be read as XML"),
    "a picture": (b"\x89PNG\r\n\x1a\n", "cannot be read as XML"),
    "unknown encoding": (b"<?xml version='1.0' encoding='none'?><a/>", "cannot be read as XML"),
    "pipe": (None, "is no regular file"),
    "17 MB": ("<a>" + "x" * 17 * 2**20 + "</a>", "has more than 16777216 bytes"),
    "unknown class": (
        "<annotation><object><name>unicorn</name></object></annotation>",
        "unknown tag 'unicorn'",
    ),
    "nameless": ("<annotation><object/></annotation>", "unknown tag ''"),
    "deep": ("<a>" * 30_000 + "</a>" * 30_000, "no tag"),
}


@pytest.mark.parametrize("name", XML)
def test_a_bad_annotation_excludes_only_its_image(tmp_path: Path, name: str) -> None:
    content, reason = XML[name]
    root = tmp_path / "VOC2012"
    for image in ("good", "bad"):
        photo(root / "JPEGImages" / f"{image}.jpg", len(image))
    lists = root / "ImageSets/Segmentation"
    annotations = root / "Annotations"
    lists.mkdir(parents=True)
    annotations.mkdir()
    (lists / "train.txt").write_text("good\nbad\n")
    (annotations / "good.xml").write_text("<a><object><name>cat</name></object></a>")
    if content is None:
        os.mkfifo(annotations / "bad.xml")
    else:
        text = content if isinstance(content, bytes) else content.encode()
        (annotations / "bad.xml").write_bytes(text)
    folder = Folder(tmp_path)
    folder.ingest(data={"kind": "voc", "root": str(root), "classes": []}).done()
    assert reason in (folder.manifest / "quarantine.csv").read_text()
    assert "good,train" in (folder.manifest / "manifest.csv").read_text()


def coco(**changes: Any) -> dict[str, Any]:
    """A small instances JSON of COCO's categories."""
    square = [[1, 1, 1, 9, 9, 9, 9, 1]]
    return {
        "images": [{"id": 1, "file_name": "good.jpg", "width": 30, "height": 20}],
        "annotations": [{"id": 5, "image_id": 1, "category_id": 17, "segmentation": square}],
        "categories": [
            {"id": category, "name": name}
            for category, name in zip(CATEGORY_IDS, COCO_NAMES, strict=True)
        ],
    } | changes


def _annotation(**changes: Any) -> dict[str, Any]:
    return coco(annotations=[coco()["annotations"][0] | changes])


def _image(**changes: Any) -> dict[str, Any]:
    return coco(images=[coco()["images"][0] | changes])


JSON: dict[str, tuple[object, str]] = {
    "no JSON": (b"hello", "is no instances JSON (JSONDecodeError"),
    "half": (json.dumps(coco()).encode()[:-9], "is no instances JSON (JSONDecodeError"),
    "deep": (b"[" * 500_000, "is no instances JSON (RecursionError"),
    "not UTF-8": (b'{"images": "\xff"}', "is no instances JSON (UnicodeDecodeError"),
    "a list": ([], "is no instances JSON (expected an object with images,"),
    "no images": ({"annotations": []}, "is no instances JSON (has no list 'images')"),
    "no file names": (coco(images=[{"id": 1}]), "image 0 has no text as file_name"),
    "number as file name": (_image(file_name=7), "image 0 has no text as file_name"),
    "list as id": (_image(id=[1]), "image 0 has '[1]' as id, no whole number"),
    "annotation of no image": (_annotation(image_id=[[]]), "annotation 0 has '[[]]' as image_id"),
    "no category": (_annotation(category_id=12), "annotation 0 is of category 12"),
    "category 10^9": (_annotation(category_id=10**9), "annotation 0 is of category 1000000000"),
    "other categories": (coco(categories=[]), "expected COCO's 80 categories, but it has 0"),
    "a unicorn": (
        coco(categories=[{"id": 1, "name": "unicorn"}, *coco()["categories"][1:]]),
        "expected COCO's 80 categories, but category 1 is 'unicorn'",
    ),
    "5000 digits": (b'{"images": ' + b"9" * 5000 + b"}", "is no instances JSON (Exceeds the limit"),
}


def _coco_folder(tmp_path: Path, content: object) -> tuple[Folder, dict[str, Any]]:
    root = tmp_path / "coco"
    photo(root / "train2014/good.jpg")
    (root / "annotations").mkdir()
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    (root / "annotations/instances_train2014.json").write_bytes(text)
    return Folder(tmp_path), {"kind": "coco", "root": str(root), "classes": []}


@pytest.mark.parametrize("name", JSON)
def test_a_bad_instances_file_is_refused(tmp_path: Path, name: str) -> None:
    content, message = JSON[name]
    folder, data = _coco_folder(tmp_path, content)
    outcome = folder.ingest(data=data)
    outcome.refused("instances_train2014.json", message)
    assert len(outcome.text) < 1500


def test_instances_that_are_a_pipe_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "instances.json")
    with pytest.raises(DataError, match="is no file of at most"):
        load_instances(tmp_path / "instances.json")


def test_a_file_name_outside_the_folder_excludes_only_its_image(tmp_path: Path) -> None:
    photo(tmp_path / "secret.jpg")
    names = ["good.jpg", "../../secret.jpg", str(tmp_path / "secret.jpg")]
    images = [
        {"id": number, "file_name": name, "width": 30, "height": 20}
        for number, name in enumerate(names, start=1)
    ]
    folder, data = _coco_folder(tmp_path, coco(images=images))
    folder.ingest(data=data).done()
    assert (folder.manifest / "quarantine.csv").read_text().count("leads out of train2014") == 2
    assert "secret" not in (folder.manifest / "manifest.csv").read_text()


RUNS = rle.encode(np.asfortranarray(np.eye(20, 30, dtype=np.uint8)))
OUTLINES: dict[str, tuple[object, str]] = {
    "far corner": ([[0, 0, 1e9, 0, 1e9, 1e9]], "a corner lies far outside of the 30 x 20 pixels"),
    "NaN corner": ([[0, 0, float("nan"), 0, 5, 5]], "a corner lies far outside"),
    "words": ([["a", "b", "c", "d", "e", "f"]], "ValueError"),
    "lists": ([[[0, 0], [1, 1], [2, 2], [0, 0], [1, 1], [2, 2]]], "is no list of x, y, x, y"),
    "no list of polygons": ([0, 0, 5, 0, 5, 5], "is no list of polygons"),
    "half a corner": ([[0, 0, 5, 0, 5, 5, 9]], "is no list of x, y, x, y"),
    "empty": ([], "it has none"),
    "runs beyond": ({"size": [20, 30], "counts": [0, 10**6]}, "its runs are not the 600 pixels"),
    "negative run": ({"size": [20, 30], "counts": [-400, 1000]}, "its runs are not the 600"),
    "half a pixel": ({"size": [20, 30], "counts": [0.5, 599.5]}, "its runs are not the 600"),
    "10^12 pixels": ({"size": [10**6, 10**6], "counts": [0, 10**12]}, "is of size"),
    "packed beyond": ({"size": [20, 30], "counts": "PPPPPPPP1"}, "runs are"),
    "packed, cut off": ({"size": [20, 30], "counts": "o"}, "its runs are cut off"),
    "packed, no text": ({"size": [20, 30], "counts": "\n\n"}, "its runs are not COCO's"),
    "no runs": ({"size": [20, 30]}, "KeyError"),
    "a number": (7, "is no polygon and no RLE"),
    "nothing": (None, "it has none"),
}


@pytest.mark.parametrize("name", OUTLINES)
def test_an_inconsistent_outline_is_refused_before_drawing(name: str) -> None:
    """Some of these end the process of pycocotools."""
    outline, message = OUTLINES[name]
    annotations = [{"id": 17, "category_id": 1, "segmentation": outline}]

    text = message_in_child(lambda: draw(annotations, 20, 30, "weakclip"))
    assert "the outline of annotation 17 cannot be drawn" in text
    assert message in text


def test_packed_runs_are_read_as_pycocotools_reads_them() -> None:
    random = np.random.default_rng(0)
    for share in (0.0, 0.02, 0.5, 1.0):
        mask = np.asfortranarray((random.random((61, 47)) < share).astype(np.uint8))
        runs = run_lengths(rle.encode(mask)["counts"])
        assert sum(runs) == mask.size
        labels = np.repeat(np.arange(len(runs)) % 2, runs).reshape(mask.shape, order="F")
        np.testing.assert_array_equal(labels, mask)


@pytest.mark.parametrize("sides", [(0, 30), (-1, 30), (10**6, 10**6)])
def test_an_image_of_impossible_size_is_not_drawn(sides: tuple[int, int]) -> None:
    with pytest.raises(TruthError, match="expected 1 to 50000000"):
        draw([], *sides, "weakclip")


def test_a_bad_mask_is_named(folder: Folder) -> None:
    folder.ingest().done()
    masks = folder.base / "masks"
    masks.mkdir()
    save_label_png(masks / "good.png", np.full((20, 30), 77, np.uint8))
    config = folder.configure(data={"masks": str(masks)})
    outcome = wsss(
        *("score", "blob", "--manifest", folder.manifest, "--split", "train"),
        *("--out", folder.base / "blob.json", "--config", config),
    )
    outcome.refused("good.png", "label 77", "ends at 2", "correct the mask")
    assert not (folder.base / "blob.json").exists()


def test_masks_that_contradict_the_tags_are_refused(folder: Folder) -> None:
    """0 and 255, as most tools write one class."""
    photo(folder.root / "x.jpg", 1)
    folder.table("image,tags\ngood.jpg,cat\nx.jpg,dog\n")
    folder.ingest().done()
    masks = folder.base / "masks"
    masks.mkdir()
    for name in ("good", "x"):
        save_label_png(masks / f"{name}.png", np.where(np.eye(20, 30) > 0, 255, 0).astype(np.uint8))
    config = folder.configure(data={"masks": str(masks)})
    outcome = wsss(
        *("score", "blob", "--manifest", folder.manifest, "--split", "train"),
        *("--out", folder.base / "blob.json", "--config", config),
    )
    outcome.refused(f"{masks}: contradicts the tags", "2 of 2 images", "1 cat, 2 dog")
    assert not (folder.base / "blob.json").exists()
