"""`shards: auto`: by the number of images, the GPUs of the jobs, and what a run has already."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from wsss.compute.planned_gpus import PLANNED_GPUS
from wsss.compute.shards import suitable_shards
from wsss.config.base import overlay
from wsss.config.load import from_mapping, load_config

PRESETS = Path(__file__).parents[2] / "workflow/presets"
DATA: dict[str, Any] = {"kind": "voc", "root": "nowhere", "train_list": "trainaug"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and jobs on the CPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(PLANNED_GPUS, "0")
    return tmp_path


def shards(gpus: int = 0, **changes: Any) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PLANNED_GPUS, str(gpus))
        return from_mapping(overlay({"name": "a", "data": DATA}, changes)).shards


def parts(path: str, count: int, time: float) -> None:
    for part in range(1, count + 1):
        file = Path("results", path, f"{part}-of-{count}.h5")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        os.utime(file, (time, time))


@pytest.mark.parametrize(
    ("images", "gpus", "expected"),
    [
        (0, 0, 1), (0, 4, 1), (670, 0, 1), (671, 0, 2), (10_582, 0, 16), (82_081, 0, 123),
        (10_582, 1, 3), (82_081, 1, 21), (10_582, 8, 8), (1464, 8, 3), (600, 8, 1),
        (82_081, 64, 64),
    ],
)  # fmt: skip
def test_parts_suit_images_and_gpus(images: int, gpus: int, expected: int) -> None:
    assert suitable_shards(images, gpus) == expected


def test_a_number_wins_and_auto_is_never_seen() -> None:
    assert shards(shards=5) == shards(gpus=1, shards=5) == 5
    assert shards(shards="auto") == shards() == 16
    assert shards(gpus=1) == 3
    assert shards(gpus=1, compute={"device": "cpu"}) == 16
    assert from_mapping({}).shards == from_mapping({"shards": "auto"}).shards == 2  # the demo


def test_images_are_those_of_the_list_where_it_is_there(folder: Path) -> None:
    lists = folder / "voc/ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "trainaug.txt").write_text("\n".join(map(str, range(1400))) + "\n\n")
    assert shards(data={"root": "voc"}) == 3
    (folder / "mine.txt").write_text("\n".join(map(str, range(700))))
    for kind in ("voc", "coco"):
        assert shards(data={"kind": kind, "train_list": "mine.txt"}) == 2
        assert shards(data={"kind": kind, "train_list": "missing.txt"}) == 1


@pytest.mark.parametrize("tags", ["auto", "photos/tags.csv"])
def test_photos_are_the_rows_of_their_table(folder: Path, tags: str) -> None:
    (folder / "photos").mkdir()
    rows = ["image,tags", *(f"{n}.jpg,cat" for n in range(671))]
    data = {"kind": "folder", "root": "photos", "tags": tags}
    (folder / "photos/tags.csv").write_text("\n".join(rows))
    assert shards(data=data) == 2
    (folder / "photos/tags.csv").write_text("\n".join(rows[:-1]))
    assert shards(data=data) == 1


@pytest.mark.parametrize("product", ["cams", "truth_masks"])
def test_a_run_keeps_the_number_of_its_parts(product: str) -> None:
    parts(f"a/{product}/train", 4, time=1e9)
    assert shards() == shards(gpus=1) == 4
    assert shards(shards=2) == 2
    parts(f"a/{product}/train", 3, time=2e9)  # the number was changed
    assert shards() == 3
    assert shards(name="b") == 16


def test_runs_of_one_configuration_have_the_same_number() -> None:
    """Else they would share no products: what any of them has counts for all."""
    parts("a/seed-1/cams/train", 4, time=1e9)
    for name in ("a", "a.seed-1", "a.seed-2"):
        assert shards(name=name) == 4
    parts("a.seed-2/cams/train", 7, time=1e9)  # a run of its own
    assert shards(name="a.seed-2") == 7
    assert shards(name="a.seed-1") == 4


@pytest.mark.parametrize("name", ["..", "a/b", "*", "", "\0", 7, None])
def test_an_invalid_name_is_left_to_its_own_error(name: object) -> None:
    with pytest.raises(ValueError, match="name"):
        shards(name=name)


@pytest.mark.parametrize(
    ("preset", "on_cpus", "on_gpus"),
    [
        ("voc12-weclip", 16, 3),
        ("voc12-weclip-plus", 16, 3),
        ("voc12-clip-es", 3, 1),
        ("coco14-weakclip", 124, 21),
        ("coco14-weclip-plus", 124, 21),
    ],  # fmt: skip,
)
def test_presets_of_whole_data_sets(
    preset: str, on_cpus: int, on_gpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_config(PRESETS / f"{preset}.yaml").shards == on_cpus
    monkeypatch.setenv(PLANNED_GPUS, "1")
    assert load_config(PRESETS / f"{preset}.yaml").shards == on_gpus
