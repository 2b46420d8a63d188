import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from wsss.__main__ import app
from wsss.config.data import COCO_RULES, DataConfig
from wsss.config.load import from_mapping
from wsss.data.datasets.coco import CATEGORY_IDS
from wsss.data.datasets.words import COCO_NAMES
from wsss.data.images.label_png import voc_palette
from wsss.data.manifest import Manifest, Sample
from wsss.score.truth import coco_masks
from wsss.score.truth.coco import DRAWN_RULES, CocoLabels
from wsss.score.truth.coco_masks import draw_part, mark_path
from wsss.score.truth.errors import TruthError
from wsss.score.truth.find import find_truth, read_truth, truth_files

SUBSET = Path(__file__).parents[3] / os.environ.get("WSSS_SHARED", "../shared") / "data/coco-subset"
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
WIDTH, HEIGHT = 9, 7
RULE = "crowd_void"


def content(count: int) -> dict[str, Any]:
    """Image n has one box of category n, 2 x 3 pixels at (n, 1), and a crowd in the last column."""
    annotations = []
    for n in range(count):
        corners = [n, 1, n + 2, 1, n + 2, 4, n, 4]
        last = {"counts": [(WIDTH - 1) * HEIGHT, HEIGHT], "size": [HEIGHT, WIDTH]}
        category = CATEGORY_IDS[n]
        annotations += [
            {"id": 2 * n, "image_id": n, "category_id": category, "iscrowd": 0,
             "segmentation": [corners]},
            {"id": 2 * n + 1, "image_id": n, "category_id": category, "iscrowd": 1,
             "segmentation": last},
        ]  # fmt: skip
    return {
        "categories": [{"id": i, "name": n} for i, n in zip(CATEGORY_IDS, COCO_NAMES, strict=True)],
        "images": [
            {"id": n, "file_name": f"COCO_val2014_{n}.jpg", "height": HEIGHT, "width": WIDTH}
            for n in range(count)
        ],
        "annotations": annotations,
    }


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """A part `val` of five images."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "annotations/instances_val2014.json").write_text(json.dumps(content(5)))
    return root


def samples(root: Path, count: int = 5) -> Manifest:
    names = [f"COCO_val2014_{n}" for n in range(count)]
    template = Sample("", "val", Path(), WIDTH, HEIGHT, "", ())
    paths = (root / "val2014" / f"{name}.jpg" for name in names)
    return Manifest(tuple(replace(template, id=path.stem, path=path) for path in paths))


def data(root: Path, masks: Path | str = "") -> DataConfig:
    return from_mapping({"data": {"kind": "coco", "root": str(root), "masks": str(masks)}}).data


def test_pngs_hold_the_labels_in_palette_colours(coco: Path, tmp_path: Path) -> None:
    assert draw_part(coco, "val", tmp_path / "out", RULE, workers=1) == (5, 5)
    with Image.open(tmp_path / "out/crowd_void/val2014/COCO_val2014_3.png") as image:
        assert image.mode == "P"
        labels = np.array(image)
        assert image.getpalette()[:12] == [value for rgb in voc_palette()[:4] for value in rgb]
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[:, -1] = 255
    expected[1:4, 3:5] = 4  # the fourth category
    np.testing.assert_array_equal(labels, expected)
    mark = json.loads((tmp_path / "out/crowd_void/val2014.json").read_text())
    assert mark["images"] == 5
    assert mark["labels"][1] == "person"
    assert len(mark["labels"]) == 81


def test_scoring_reads_the_same_labels_from_pngs(coco: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    draw_part(coco, "val", out, RULE, workers=1)
    drawn = find_truth(data(coco, out), samples(coco), "val")
    direct = find_truth(data(coco), samples(coco), "val")
    assert list(drawn.sources) == list(direct.sources)
    assert "smaller instances on top" in drawn.description
    for image, source in direct.sources.items():
        actual = read_truth(drawn.sources[image], image, HEIGHT, WIDTH)
        np.testing.assert_array_equal(actual, source.read())


def test_an_interrupted_call_is_resumed(coco: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    draw_part(coco, "val", out, RULE, workers=1)
    mark_path(out, "val", RULE).unlink()
    (out / "crowd_void/val2014/COCO_val2014_1.png").unlink()
    (out / "crowd_void/val2014/COCO_val2014_2.png").write_bytes(b"")  # what a power cut may leave
    with pytest.raises(TruthError, match=r"val2014\.json: not there, so val2014 is not drawn"):
        find_truth(data(coco, out), samples(coco), "val")
    assert draw_part(coco, "val", out, RULE, workers=1) == (5, 2)
    assert draw_part(coco, "val", out, RULE, workers=1) == (5, 0)
    assert find_truth(data(coco, out), samples(coco), "val")


def test_other_sources_redraw(coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    draw_part(coco, "val", out, RULE, workers=1)
    (coco / "annotations/instances_val2014.json").write_text(json.dumps(content(4)))
    with pytest.raises(TruthError, match="drawn from another"):
        find_truth(data(coco, out), samples(coco, 4), "val")
    assert draw_part(coco, "val", out, RULE, workers=1) == (4, 4)
    assert not (out / "crowd_void/val2014/COCO_val2014_4.png").exists()
    monkeypatch.setattr(coco_masks, "COCO_RULES", {RULE: "larger instances on top"})
    assert draw_part(coco, "val", out, RULE, workers=1) == (4, 4)


def test_foreign_pngs_are_not_changed(coco: Path, tmp_path: Path) -> None:
    mine = tmp_path / "out/val2014/COCO_val2014_0.png"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(TruthError, match="PNGs that this command did not draw; to score with"):
        draw_part(coco, "val", tmp_path / "out", RULE, workers=1)
    assert mine.read_text() == "mine"


def test_the_masks_of_each_rule_lie_apart(coco: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for rule in DRAWN_RULES:
        assert draw_part(coco, "val", out, rule, workers=1) == (5, 5)
    crowds = {}
    for rule in DRAWN_RULES:
        given = data(coco, out).model_copy(update={"coco_truth": rule})
        truth = find_truth(given, samples(coco), "val")
        assert truth.rule == rule
        assert truth.description == f"{out / rule} ({rule}: {COCO_RULES[rule]})"
        labels = read_truth(truth.sources["COCO_val2014_2"], "COCO_val2014_2", HEIGHT, WIDTH)
        crowds[rule] = int(labels[0, -1])
    assert crowds == {"crowd_void": 255, "voc_style": 3, "weakclip": 3}
    given = data(coco, out).model_copy(update={"coco_truth": "weakclip"})
    mark_path(out, "val", "weakclip").unlink()
    with pytest.raises(TruthError, match=r"coco-masks .* --rule weakclip --out"):
        find_truth(given, samples(coco), "val")


def test_a_removed_png_is_noticed(coco: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    draw_part(coco, "val", out, RULE, workers=1)
    (out / "crowd_void/val2014/COCO_val2014_1.png").unlink()
    with pytest.raises(TruthError, match="1 of 5 images have no ground truth: 'COCO_val2014_1'"):
        find_truth(data(coco, out), samples(coco), "val")


def test_masks_do_without_the_json(coco: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    draw_part(coco, "val", out, RULE, workers=1)
    shutil.rmtree(coco / "annotations")
    assert len(find_truth(data(coco, out), samples(coco), "val").sources) == 5


def test_which_marks_a_split_needs(tmp_path: Path) -> None:
    masks = tmp_path / "m"
    given = {"kind": "coco", "masks": str(masks), "train_list": "mine.txt", "val_list": "val2014"}
    both = from_mapping({"data": given})
    assert truth_files(both.data, "val") == [masks / "crowd_void/val2014.json"]
    marks = [masks / f"crowd_void/{part}2014.json" for part in ("train", "val")]
    assert truth_files(both.data, "train") == marks
    other = both.data.model_copy(update={"coco_truth": "voc_style"})
    assert truth_files(other, "val") == [masks / "voc_style/val2014.json"]
    assert not truth_files(both.data.model_copy(update={"coco_truth": "png"}), "val")
    assert not truth_files(data(tmp_path), "val")
    assert not truth_files(from_mapping({}).data, "val")


def test_masks_of_the_other_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.masks is for kinds folder and coco"):
        from_mapping({"data": {"kind": "voc", "masks": "somewhere"}})


@pytest.mark.slow
@pytest.mark.skipif(not SUBSET.is_dir(), reason="WSSS_SHARED has no data/coco-subset")
def test_real_annotations_in_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco_masks, "_IMAGES_WORTH_A_POOL", 2)
    monkeypatch.setattr(coco_masks, "_IMAGES_PER_JOB", 5)
    whole = json.loads((SUBSET / "annotations/instances_val2014.json").read_text())
    images = whole["images"][:20]
    image_ids = {image["id"] for image in images}
    instances = [instance for instance in whole["annotations"] if instance["image_id"] in image_ids]
    path = tmp_path / "annotations/instances_val2014.json"
    path.parent.mkdir()
    path.write_text(json.dumps(whole | {"images": images, "annotations": instances}))
    out = tmp_path / "masks"
    arguments = [str(tmp_path), "--out", str(out), "--part", "val", "--workers", "2"]
    done = CliRunner().invoke(app, ["truth", "coco-masks", *arguments])
    assert done.exit_code == 0, done.output
    assert f"val2014: 20 masks in {out / RULE}, 20 drawn now" in done.output
    assert not (out / RULE / "train2014").exists()
    labels = CocoLabels(path, RULE)
    for name in labels.file_names:
        truth = labels.find(name)
        with Image.open(out / RULE / "val2014" / f"{Path(name).stem}.png") as image:
            np.testing.assert_array_equal(np.array(image), truth.read())
