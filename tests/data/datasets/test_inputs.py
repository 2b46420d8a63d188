"""The files that ingest reads, by which the workflow notices that one changed."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from wsss.artifacts.watch import state
from wsss.config.data import DataConfig
from wsss.data.datasets.inputs import input_stamps
from wsss.data.ingest.stage import only_test
from wsss.data.manifest_folder import load

from ..conftest import Photos, run_ingest


def names(root: Path, **data: Any) -> set[str]:
    stamps = input_stamps(DataConfig(root=str(root), **data))
    return {Path(path).relative_to(root).as_posix() for path in stamps}


def touch(root: Path, *files: str, text: str = "") -> None:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_of_voc_only_the_images_on_the_lists_count(tmp_path: Path) -> None:
    touch(tmp_path, *(f"JPEGImages/{name}.jpg" for name in ("a", "B.1", "other")))
    touch(tmp_path, "Annotations/a.xml", "Annotations/other.xml", "my.csv")
    lists = "ImageSets/Segmentation"
    touch(tmp_path, f"{lists}/train.txt", text="a 1\n")
    touch(tmp_path, f"{lists}/val.txt", text="JPEGImages/b.1.jpg SegmentationClass/b.1.png\n")
    touch(tmp_path, f"{lists}/test.txt", text="other\n")
    listed = {"JPEGImages/a.jpg", "JPEGImages/B.1.jpg", f"{lists}/train.txt", f"{lists}/val.txt"}
    assert names(tmp_path, kind="voc") == listed | {"Annotations/a.xml"}
    assert names(tmp_path, kind="voc", tags="masks") == listed
    assert names(tmp_path, kind="voc", tags="my.csv") == listed | {"my.csv"}
    test = only_test(DataConfig(kind="voc", root=str(tmp_path)), str(tmp_path / lists / "test.txt"))
    assert {Path(path).name for path in input_stamps(test)} == {
        "other.jpg", "other.xml", "test.txt",
    }  # fmt: skip


def test_of_coco_the_parts_that_are_read_count(tmp_path: Path) -> None:
    for part in ("train", "val"):
        touch(tmp_path, f"{part}2014/x.jpg", f"annotations/instances_{part}2014.json")
    touch(tmp_path, "few.txt", text="x")
    val = {"val2014/x.jpg", "annotations/instances_val2014.json"}
    assert names(tmp_path, kind="coco", train_list="", val_list="val-with-objects") == val
    both = {path.replace("val", "train") for path in val} | val
    assert names(tmp_path, kind="coco", train_list="few.txt") == both | {"few.txt"}


def test_of_a_folder_all_photos_count_but_no_masks(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "a.jpg",
        "deep/b.PNG",
        "masks/a.png",
        "tags.csv",
        "mine.txt",
        "notes.md",
        "c.jpg_large",
    )
    masks = str(tmp_path / "masks")
    assert names(tmp_path, kind="folder", masks=masks, train_list="mine.txt") == {
        "a.jpg", "c.jpg_large", "deep/b.PNG", "tags.csv", "mine.txt",
    }  # fmt: skip


def test_results_beside_the_photos_are_no_photos(
    photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each run would read the last one's masks, and so would run again for ever."""
    monkeypatch.chdir(photos.root)
    photos.add("a.jpg")
    photos.table("image,tags\na,cat\n")
    config, out = photos.config(root="."), Path("results/photos/manifest")

    def now() -> str:
        return state(input_stamps(config.data), out / "inputs.json")

    first = now()
    run_ingest(config, out, state=first)
    photos.add("results/photos/masks/train/png/1-of-1/label/a.png")
    assert now() == first
    assert run_ingest(config, out, state=first).skipped == 0
    assert [sample.id for sample in load(out)[0]] == ["a"]


@pytest.mark.parametrize("edit", ["remove", "unlisted", "unusable", "table"])
def test_ingest_records_what_it_read(photos: Photos, edit: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for name in ("a.jpg", "b.jpg"):
        photos.add(name)
    (photos.root / "bad.jpg").write_bytes(b"no photo")
    photos.add("untagged.jpg")
    photos.table("image,tags\na,cat\nb,dog\nbad,dog\n")
    config = photos.config(quarantine_limit=1)

    def now() -> str:
        return state(input_stamps(config.data), photos.out / "inputs.json")

    first = now()
    run_ingest(config, photos.out, state=first)
    assert now() == first
    shutil.copytree(photos.root, copy := tmp_path / "copy")
    for path in copy.iterdir():
        if path.name in ("a.jpg", "b.jpg", "tags.csv"):  # their content is in the record
            shutil.copy(path, photos.root)
    assert now() == first
    if edit == "remove":
        (photos.root / "b.jpg").unlink()
    elif edit == "unlisted":
        photos.add("untagged.jpg", seed=7)
    elif edit == "unusable":
        photos.add("bad.jpg")
    else:
        photos.table("image,tags\na,cat\nb,cow\nbad,dog\n")
    second = now()
    assert second != first
    run_ingest(config, photos.out, state=second)
    assert now() == second
