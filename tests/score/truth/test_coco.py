import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from wsss.config.load import from_mapping
from wsss.data.datasets.coco import CATEGORY_IDS
from wsss.data.datasets.words import COCO_NAMES
from wsss.data.errors import DataError
from wsss.data.manifest import Manifest, Sample
from wsss.score.truth.coco import DRAWN_RULES, CocoLabels, draw
from wsss.score.truth.find import TruthError, find_truth

from ..conftest import Run

SUBSET = Path(os.environ.get("WSSS_SHARED", "../shared")) / "data" / "coco-subset"
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
PERSON, DOG, TOOTHBRUSH = 1, 18, 90  # COCO's ids; labels 1, 17 and 80


def box(
    annotation_id: int, category: int, x: int, y: int, width: int, height: int
) -> dict[str, Any]:
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    return {"id": annotation_id, "category_id": category, "iscrowd": 0, "segmentation": [corners]}


def crowd(annotation_id: int, category: int, mask: np.ndarray) -> dict[str, Any]:
    """Uncompressed run lengths, column by column, beginning with zeros."""
    counts, last, length = [], 0, 0
    for value in mask.ravel(order="F").tolist():
        if value != last:
            counts.append(length)
            last, length = value, 0
        length += 1
    segmentation = {"counts": [*counts, length], "size": list(mask.shape)}
    return {
        "id": annotation_id,
        "category_id": category,
        "iscrowd": 1,
        "segmentation": segmentation,
    }


def test_smaller_on_top_crowd_void_whatever_the_order() -> None:
    region = np.zeros((10, 12), np.uint8)
    region[0:4, 6:12] = 1
    annotations = [
        box(3, DOG, 2, 2, 3, 3),
        box(1, PERSON, 1, 1, 7, 8),
        crowd(9, PERSON, region),
        box(5, TOOTHBRUSH, 3, 3, 1, 1),
    ]
    expected = np.zeros((10, 12), np.uint8)
    expected[0:4, 6:12] = 255
    expected[1:9, 1:8] = 1  # a separate instance stays inside the crowd region
    expected[2:5, 2:5] = 17
    expected[3, 3] = 80
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2]):
        drawn = draw([annotations[i] for i in order], 10, 12, "crowd_void")
        np.testing.assert_array_equal(drawn, expected)


def test_equal_areas_by_annotation_id_and_degenerate_polygons() -> None:
    first, second = box(1, PERSON, 0, 0, 4, 4), box(2, DOG, 2, 0, 4, 4)
    labels = draw([second, first], 4, 8, "crowd_void")
    assert (labels[:, 2:6] == 17).all()
    assert (labels[:, :2] == 1).all()
    line = {"id": 4, "category_id": DOG, "iscrowd": 0, "segmentation": [[0, 0, 4, 4]]}
    for rule in DRAWN_RULES:
        assert not draw([line], 6, 6, rule).any()  # four numbers are two points, no box
        assert not draw([], 6, 6, rule).any()


@pytest.fixture
def coco(make_run: Callable[..., Run]) -> tuple[Run, Path]:
    """The tiny run as a COCO data set: one box per image, none in the last."""
    run = make_run(4)
    path = run.folder / "data" / "annotations" / "instances_train2014.json"
    path.parent.mkdir(parents=True)
    for n, s in enumerate(run.samples):
        run.samples[n] = replace(s, path=Path("data/train2014") / s.path.name)
    content = {
        "categories": [{"id": i, "name": n} for i, n in zip(CATEGORY_IDS, COCO_NAMES, strict=True)],
        "images": [
            {"id": 100 + n, "file_name": s.path.name, "height": s.height, "width": s.width}
            for n, s in enumerate(run.samples)
        ],
        "annotations": [
            {**box(n, DOG, 2, 3, 5, 6), "image_id": 100 + n} for n in range(len(run.samples) - 1)
        ],
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return run, path


def test_finds_images_by_file_name(coco: tuple[Run, Path]) -> None:
    run, path = coco
    config = from_mapping({"data": {"kind": "coco", "root": str(run.folder / "data")}})
    truth = find_truth(config.data, Manifest(tuple(run.samples)), "train")
    assert str(path) in truth.description
    assert "smaller instances on top" in truth.description
    sample = run.samples[1]
    labels = truth.sources[sample.id].read()
    assert labels.shape == (sample.height, sample.width)
    assert (labels == 17).sum() == 30
    assert not truth.sources[run.samples[-1].id].read().any()
    strange = Sample("x", "train", Path("train2014/x.jpg"), 4, 4, "", ())
    with pytest.raises(TruthError, match="1 of 5 images have no ground truth: 'x'"):
        find_truth(config.data, Manifest((*run.samples, strange)), "train")


def test_loose_annotations_are_drawn(coco: tuple[Run, Path]) -> None:
    run, path = coco
    content = json.loads(path.read_text())
    for image in content["images"]:
        image |= {"height": float(image["height"]), "width": str(image["width"])}
    for annotation in content["annotations"]:
        del annotation["id"]
        annotation |= {"image_id": str(annotation["image_id"]), "iscrowd": "0"}
    path.write_text(json.dumps(content), encoding="utf-8")
    config = from_mapping({"data": {"kind": "coco", "root": str(run.folder / "data")}})
    truth = find_truth(config.data, Manifest(tuple(run.samples)), "train")
    assert (truth.sources[run.samples[1].id].read() == 17).sum() == 30
    few = config.data.model_copy(update={"max_pixels": 9})
    with pytest.raises(TruthError, match=r"pixels, expected 1 to 9$"):
        find_truth(few, Manifest(tuple(run.samples)), "train").sources[run.samples[1].id].read()
    del content["images"][1]["height"]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(TruthError, match=r"instances_train2014\.json: image .* has no height or"):
        find_truth(config.data, Manifest(tuple(run.samples)), "train")


def test_missing_json(run: Run) -> None:
    config = from_mapping({"data": {"kind": "coco", "root": str(run.folder)}})
    run.samples[0] = replace(run.samples[0], path=Path("val2014/x.jpg"))
    with pytest.raises(DataError, match=r"instances_val2014\.json: cannot be read"):
        find_truth(config.data, Manifest(tuple(run.samples[:1])), "val")


@pytest.mark.skipif(not SUBSET.is_dir(), reason=f"{SUBSET} is not there (set WSSS_SHARED)")
def test_real_annotations() -> None:
    path = SUBSET / "annotations" / "instances_val2014.json"
    reference = COCO(str(path))
    index = {category: label for label, category in enumerate(sorted(reference.getCatIds()), 1)}
    labels = CocoLabels(path, "crowd_void")
    for image in reference.dataset["images"][:20]:
        truth = labels.find(image["file_name"])
        drawn = truth.read()
        assert drawn.shape == (image["height"], image["width"])
        annotations = reference.loadAnns(reference.getAnnIds(imgIds=image["id"]))
        masks = {a["id"]: reference.annToMask(a).astype(bool) for a in annotations}
        # Pixel by pixel: the smallest instance that covers it, else void in a crowd, else 0.
        expected = np.zeros(drawn.shape, np.uint8)
        best = np.full(drawn.shape, np.inf)
        for a in annotations:
            if a["iscrowd"]:
                expected[masks[a["id"]] & np.isinf(best)] = 255
                continue
            mask = masks[a["id"]]
            mask = mask & (mask.sum() < best)
            expected[mask], best[mask] = index[a["category_id"]], masks[a["id"]].sum()
        np.testing.assert_array_equal(drawn, expected)
