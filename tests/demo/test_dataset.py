"""The folder on disk: VOC's layout, the same bytes on every run, never partly written."""

import csv
import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss.data.datasets.words import DEMO_NAMES
from wsss.demo import dataset
from wsss.demo.dataset import generate, is_as_drawn


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        generate(tmp_path / name, seed=4, train=6, val=3)
    first, second = digests(tmp_path / "one"), digests(tmp_path / "two")
    assert len(first) == 2 * 9 + 5
    assert first == second
    assert sorted(os.listdir(tmp_path)) == ["one", "two"]


def test_images_do_not_depend_on_their_number(tmp_path: Path, demo_root: Path) -> None:
    generate(tmp_path / "few", train=2, val=2)
    few, many = digests(tmp_path / "few"), digests(demo_root)
    pictures = [name for name in few if name.endswith((".jpg", ".png"))]
    assert len(pictures) == 8
    assert all(few[name] == many[name] for name in pictures)


def test_layout(demo_root: Path) -> None:
    assert (demo_root / "classes.txt").read_text().split() == list(DEMO_NAMES)
    with (demo_root / "tags.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert list(rows[0]) == ["image", "tags"]
    listed = []
    for split, count in (("train", 12), ("val", 8)):
        names = (demo_root / f"ImageSets/Segmentation/{split}.txt").read_text().split()
        assert len(names) == count
        listed += names
    assert [row["image"] for row in rows] == listed
    for row in rows:
        mask = np.array(Image.open(demo_root / f"SegmentationClass/{row['image']}.png"))
        labels = set(np.unique(mask).tolist()) - {0, 255}
        assert [DEMO_NAMES[value - 1] for value in sorted(labels)] == row["tags"].split(";")


def test_masks_are_palette_images(demo_root: Path) -> None:
    with Image.open(demo_root / "SegmentationClass/val_0000.png") as mask:
        assert mask.mode == "P"
        palette = mask.getpalette()
        size = mask.size
    assert palette[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
    assert palette[-3:] == [224, 224, 192]
    with Image.open(demo_root / "JPEGImages/val_0000.jpg") as picture:
        assert picture.size == size
        assert picture.mode == "RGB"


def test_finished_folder_is_not_changed(tmp_path: Path) -> None:
    root = tmp_path / "data"
    generate(root, train=1, val=1)
    before = (root / "tags.csv").stat().st_mtime_ns
    generate(root, train=1, val=1)
    assert (root / "tags.csv").stat().st_mtime_ns == before


def test_other_parameters_or_a_lost_record_redraw(tmp_path: Path) -> None:
    root = tmp_path / "data"
    generate(root, train=1, val=1)
    generate(root, train=2, val=1)
    assert len(list((root / "JPEGImages").iterdir())) == 3
    (root / "demo.json").unlink()  # Snakemake deletes a rule's output before it runs it again
    generate(root, train=1, val=1)
    assert len(list((root / "JPEGImages").iterdir())) == 2


@pytest.mark.parametrize(
    ("edit", "pattern"), [("remove", "JPEGImages/*.jpg"), ("exchange", "SegmentationClass/*.png")]
)
def test_a_lost_or_exchanged_file_is_drawn_again(tmp_path: Path, edit: str, pattern: str) -> None:
    root = tmp_path / "data"
    generate(root, train=2, val=1)
    photo, other, _ = sorted(root.glob(pattern))
    before = photo.read_bytes()
    assert is_as_drawn(root)
    photo.unlink()
    if edit == "exchange":
        shutil.copy(other, photo)
    assert not is_as_drawn(root)
    generate(root, train=2, val=1)
    assert photo.read_bytes() == before
    photo.parent.rename(root / "aside")
    assert is_as_drawn(root) == (photo.parent.name == "SegmentationClass")


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="not a demo"):
        generate(tmp_path, train=1, val=1)
    assert (tmp_path / "photo.jpg").read_bytes() == b"precious"


def test_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(dataset, "_write_scene", broken)
    with pytest.raises(OSError, match="disk full"):
        generate(tmp_path / "data", train=1, val=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"train": 0}, {"val": 0}])
def test_arguments_out_of_range(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="need seed"):
        generate(tmp_path / "data", **wrong)
