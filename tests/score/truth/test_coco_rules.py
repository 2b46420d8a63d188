"""The rules behind COCO's label maps, against a painter that decides for each pixel by itself."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as rle
from typer.testing import CliRunner

from wsss.__main__ import app
from wsss.config.data import CocoRule
from wsss.data.datasets.coco import CATEGORY_IDS
from wsss.data.datasets.words import COCO_NAMES
from wsss.score.truth.coco import DRAWN_RULES, draw
from wsss.score.truth.errors import TruthError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
HEIGHT, WIDTH = 7, 9
Regions = list[tuple[dict[str, Any], set[tuple[int, int]]]]


def run_lengths(pixels: set[tuple[int, int]]) -> list[int]:
    """Column by column, beginning with zeros."""
    counts, last = [0], False
    for x in range(WIDTH):
        for y in range(HEIGHT):
            if ((y, x) in pixels) != last:
                counts.append(0)
                last = not last
            counts[-1] += 1
    return counts


def region(rng: np.random.Generator) -> tuple[dict[str, Any], set[tuple[int, int]]]:
    """An annotation without an id, and its pixels."""
    corners, pixels = [], set()
    for _ in range(rng.integers(1, 3)):
        left, top = int(rng.integers(WIDTH)), int(rng.integers(HEIGHT))
        right = int(rng.integers(left + 1, WIDTH + 1))
        bottom = int(rng.integers(top + 1, HEIGHT + 1))
        corners.append([left, top, right, top, right, bottom, left, bottom])
        pixels |= {(y, x) for y in range(top, bottom) for x in range(left, right)}
    outline: Any = corners
    is_crowd = bool(rng.random() < 0.3)
    if is_crowd:
        pixels ^= {(int(rng.integers(HEIGHT)), int(rng.integers(WIDTH))) for _ in range(9)}
        outline = {"counts": run_lengths(pixels), "size": [HEIGHT, WIDTH]}
        if rng.random() < 0.5:
            packed = rle.frPyObjects(outline, HEIGHT, WIDTH)
            outline = packed | {"counts": packed["counts"].decode()}
    annotation = {
        "category_id": int(rng.choice(CATEGORY_IDS)),
        "iscrowd": int(is_crowd),
        "segmentation": outline,
    }
    if rng.random() < 0.8:  # few values, so that some are equal
        annotation["area"] = float(rng.choice([2.0, 8.5, 8.5, 30.0]))
    return annotation, pixels


def visible(regions: Regions, y: int, x: int, rule: CocoRule) -> int:
    """The label of one pixel."""
    there = [(n, a, p) for n, (a, p) in enumerate(regions) if (y, x) in p]
    if rule == "crowd_void":
        objects = [entry for entry in there if not entry[1]["iscrowd"]]
        if there and not objects:
            return 255
        there = sorted(objects, key=lambda entry: (len(entry[2]), -entry[1]["id"]))
    elif rule == "voc_style":
        there = sorted(there, key=lambda e: (e[1].get("area", len(e[2])), e[0]))
    return CATEGORY_IDS.index(there[0][1]["category_id"]) + 1 if there else 0


@pytest.mark.parametrize("rule", DRAWN_RULES)
def test_every_pixel_shows_what_the_rule_says(rule: CocoRule) -> None:
    rng = np.random.default_rng(7)
    differing = 0
    for _ in range(60):
        regions = [region(rng) for _ in range(rng.integers(8))]
        ids = rng.permutation(100)
        regions = [({**a, "id": int(i)}, p) for (a, p), i in zip(regions, ids, strict=False)]
        pixels = [[visible(regions, y, x, rule) for x in range(WIDTH)] for y in range(HEIGHT)]
        drawn = draw([annotation for annotation, _ in regions], HEIGHT, WIDTH, rule)
        np.testing.assert_array_equal(drawn, pixels)
        others = [r for r in DRAWN_RULES if r != rule]
        differing += any(
            (draw([a for a, _ in regions], HEIGHT, WIDTH, other) != drawn).any() for other in others
        )
    assert differing > 30  # the cases tell the rules apart


def test_the_stated_area_counts_for_voc_style_alone() -> None:
    large = [[0, 0, 6, 0, 6, 6, 0, 6]]
    small = [[0, 0, 3, 0, 3, 3, 0, 3]]
    annotations = [
        {"id": 1, "category_id": 1, "segmentation": large, "area": 4},
        {"id": 2, "category_id": 2, "segmentation": small, "area": "9.5"},
    ]
    drawn = {rule: int(draw(annotations, 6, 6, rule)[0, 0]) for rule in DRAWN_RULES}
    assert drawn == {"crowd_void": 2, "voc_style": 1, "weakclip": 1}
    annotations[0]["area"] = "much"
    assert draw(annotations, 6, 6, "weakclip")[0, 0] == 1
    with pytest.raises(TruthError, match=r"annotation 1 cannot be drawn \(ValueError"):
        draw(annotations, 6, 6, "voc_style")
    with pytest.raises(ValueError, match="png: nothing is drawn by it"):
        draw(annotations, 6, 6, "png")


def test_the_agreement_of_the_rules(tmp_path: Path) -> None:
    """16 pixels of a person, 4 of them and 4 others of a bicycle: by hand 12/16, 4/8 and 4/4."""
    person = [[0, 0, 4, 0, 4, 4, 0, 4]]
    bicycle = [[2, 0, 6, 0, 6, 2, 2, 2]]
    content = {
        "categories": [{"id": i, "name": n} for i, n in zip(CATEGORY_IDS, COCO_NAMES, strict=True)],
        "images": [{"id": 0, "file_name": "COCO_val2014_0.jpg", "height": 4, "width": 6}],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 1, "area": 16, "segmentation": person},
            {"id": 2, "image_id": 0, "category_id": 2, "area": 8, "segmentation": bicycle},
        ],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_val2014.json").write_text(json.dumps(content))
    done = CliRunner().invoke(app, ["truth", "coco-rules", str(tmp_path), "--part", "val"])
    assert done.exit_code == 0, done.output
    assert "val2014, 1 images, pixels that are not void by either rule:" in done.output
    assert "  crowd_void and voc_style: mIoU 100.0, 100.00 % of the pixels equal" in done.output
    for first in ("crowd_void", "voc_style"):
        line = f"  {first} and weakclip: mIoU 75.0, 83.33 % of the pixels equal"
        assert line in done.output


def test_an_unknown_rule_or_part_is_one_message(tmp_path: Path) -> None:
    for arguments in (["--rule", "png"], ["--part", "test"]):
        given = ["truth", "coco-masks", str(tmp_path), "--out", str(tmp_path / "out"), *arguments]
        done = CliRunner().invoke(app, given)
        assert done.exit_code == 2
        assert f"found '{arguments[1]}', expected" in done.output
