from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from wsss.config.data import DataConfig
from wsss.data.datasets.candidates import Candidate
from wsss.data.datasets.registry import read_dataset
from wsss.data.errors import DataError

from ..conftest import picture

MakeVoc = Callable[..., Path]


def read(root: Path, **data: str) -> dict[str, tuple[Candidate, list[str]]]:
    """id → candidate and its tags by name."""
    dataset = read_dataset(DataConfig(kind="voc", root=str(root), **{"val_list": "", **data}))
    names = dataset.classes.names
    return {
        image.id: (image, [names[index] for index in image.tags]) for image in dataset.candidates
    }


def test_tags_are_all_objects_in_order_of_appearance(make_voc: MakeVoc) -> None:
    root = make_voc({"a": ["person", "dog", "person", "cat"]}, train=["a"])
    candidate, tags = read(root)["a"]
    assert tags == ["person", "dog", "cat"]
    assert candidate.problem is None
    assert candidate.path == root / "JPEGImages" / "a.jpg"


def test_splits_and_order_follow_the_lists(make_voc: MakeVoc) -> None:
    root = make_voc({image: ["cat"] for image in "abc"}, train=["c", "a"], val=["b"])
    images = read(root, val_list="val")
    assert [(name, image.split) for name, (image, _) in images.items()] == [
        ("c", "train"), ("a", "train"), ("b", "val"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        "2007_01",
        "2007_01 1",
        "2007_01.jpg",
        "/JPEGImages/2007_01.jpg /SegmentationClassAug/2007_01.png",
        "JPEGImages/2007_01.jpg",
    ],
)
def test_lines_of_all_kinds_of_lists(make_voc: MakeVoc, line: str) -> None:
    root = make_voc({"2007_01": ["cat"]}, trainaug=[line])
    assert read(root, train_list="trainaug")["2007_01"][1] == ["cat"]


def test_names_with_spaces_and_unicode(make_voc: MakeVoc) -> None:
    root = make_voc({"my cat é 1": ["cat"], "my": ["dog"]}, train=["my cat é 1"])
    assert read(root)["my cat é 1"][1] == ["cat"]
    lines = ["/JPEGImages/my cat é 1.jpg /SegmentationClass/my cat é 1.png"]
    (root / "ImageSets/Segmentation/train.txt").write_text(lines[0])
    assert read(root)["my cat é 1"][1] == ["cat"]


def test_list_from_a_text_file(make_voc: MakeVoc, tmp_path: Path) -> None:
    root = make_voc({"a": ["cat"], "b": ["dog"]})
    (tmp_path / "mine.txt").write_text("\ufeffb\r\n\r\n")
    assert list(read(root, train_list=str(tmp_path / "mine.txt"))) == ["b"]


def test_listed_file_that_is_missing_remains_a_candidate(make_voc: MakeVoc) -> None:
    root = make_voc({"a": ["cat"]}, train=["a", "gone"])
    assert read(root)["gone"][0].path == root / "JPEGImages" / "gone.jpg"


def test_image_without_annotation_has_no_tags(make_voc: MakeVoc) -> None:
    candidate, tags = read(make_voc({"a": None}, train=["a"]))["a"]
    assert (tags, candidate.problem) == ([], None)


def test_two_files_with_the_same_name(make_voc: MakeVoc) -> None:
    root = make_voc({"a": ["cat"]}, train=["a"])
    Image.fromarray(picture()).save(root / "JPEGImages" / "a.png")
    assert "fits several files: a.jpg, a.png" in str(read(root)["a"][0].problem)


@pytest.mark.parametrize(
    "text", ["image;classes\na;dog aeroplane\n", "image,tags\na.jpg,dog;aeroplane\n"]
)
def test_tags_from_a_table(make_voc: MakeVoc, text: str) -> None:
    root = make_voc({"a": ["cat"]}, train=["a"])
    (root / "tags.csv").write_text(text)
    assert read(root, tags="tags.csv")["a"][1] == ["dog", "aeroplane"]
    assert read(root, tags=str(root / "tags.csv"))["a"][1] == ["dog", "aeroplane"]


def test_masks_are_never_needed_or_opened(make_voc: MakeVoc) -> None:
    root = make_voc({"a": ["cat"]}, train=["a"])
    (root / "SegmentationClass").mkdir()
    (root / "SegmentationClass" / "a.png").write_text("no mask")
    assert read(root)["a"][1] == ["cat"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"train_list": "tarin"}, r"tarin\.txt: no such list \(lists there: train\)"),
        ({"tags": "nowhere.csv"}, r"nowhere\.csv: the table of tags cannot be read"),
        ({"tags": "json"}, "json is for kind coco"),
    ],
)
def test_configuration_errors(make_voc: MakeVoc, data: dict[str, str], message: str) -> None:
    root = make_voc({"a": ["cat"]}, train=["a"])
    with pytest.raises(DataError, match=message):
        read(root, **data)


def test_folder_errors(make_voc: MakeVoc) -> None:
    root = make_voc({"a": ["cat"]}, train=["a"])
    with pytest.raises(DataError, match=r"has no folder JPEGImages; did you mean .*VOC2012\?"):
        read(root.parent)
    with pytest.raises(DataError, match="no such folder"):
        read(root / "nowhere")
    (root / "tags.csv").touch()
    (root / "Annotations" / "a.xml").unlink()
    (root / "Annotations").rmdir()
    with pytest.raises(DataError, match=r"set data.tags to a CSV \(.*tags\.csv exists\)"):
        read(root)


def test_demo_is_vocs_layout_with_a_table(make_voc: MakeVoc) -> None:
    root = make_voc({"train_0": None, "val_0": None}, train=["train_0"], val=["val_0"])
    (root / "tags.csv").write_text("image,tags\ntrain_0,cat;tree\nval_0,boat\n")
    dataset = read_dataset(DataConfig(kind="demo", root=str(root)))
    names = dataset.classes.names
    tags = {image.id: [names[index] for index in image.tags] for image in dataset.candidates}
    assert tags == {"train_0": ["cat", "tree"], "val_0": ["boat"]}
