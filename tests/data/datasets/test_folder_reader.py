import csv
import tracemalloc
from pathlib import Path

import pytest
from PIL import Image

from wsss.data.datasets.files import PhotoIndex
from wsss.data.datasets.registry import read_dataset
from wsss.data.errors import DataError

from ..conftest import Photos, picture


def test_names_with_and_without_folder_extension_and_case(photos: Photos) -> None:
    for name in ("one.jpg", "sub/two.png", "deep/er/Three.JPG", "4 é ö.jpeg", "a.b.c.jpg"):
        photos.add(name)
    photos.table(
        "image,tags\none,cat\ntwo.png,dog\ndeep/er/three.jpg,cat;dog\n"
        "4 e\u0301 o\u0308.jpeg,teddy bear\na.b.c.jpg,dog\n"
    )
    photos.ingest()
    assert {image: photos.tags(image) for image in photos.samples()} == {
        "4 é ö": ["teddy bear"],
        "a.b.c": ["dog"],
        "deep/er/Three": ["cat", "dog"],
        "one": ["cat"],
        "sub/two": ["dog"],
    }
    assert photos.quarantine() == {}


def test_the_index_of_a_million_photos_fits_into_memory(tmp_path: Path) -> None:
    """Names that nobody asks for took 2 KB a photo."""
    for index in range(1000):
        (tmp_path / f"IMG_{index:08d}.jpg").touch()
    tracemalloc.start()
    index = PhotoIndex(tmp_path)
    assert index.find("IMG_00000999.jpg") == [tmp_path / "IMG_00000999.jpg"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_500_000
    assert index.find("img_00000999") == [tmp_path / "IMG_00000999.jpg"]


def test_exact_name_wins_over_the_same_name_in_a_sub_folder(photos: Photos) -> None:
    photos.add("a.jpg")
    photos.add("sub/a.jpg")
    photos.table("image,tags\na.jpg,cat\nsub/a.jpg,dog\n")
    photos.ingest()
    assert (photos.tags("a"), photos.tags("sub/a")) == (["cat"], ["dog"])


def test_of_many_photos_that_fit_a_few_are_named(photos: Photos) -> None:
    for folder in range(9):
        photos.add(f"{folder}/a.jpg")
    photos.table("image,tags\na.jpg,cat\n")
    (problem,) = (
        image.problem for image in read_dataset(photos.config().data).candidates if image.problem
    )
    assert "fits several photos: 0/a.jpg, 1/a.jpg, 2/a.jpg and 6 more; write" in problem


def test_ambiguous_name(photos: Photos) -> None:
    photos.add("x/a.jpg")
    photos.add("y/a.jpg")
    photos.add("b.jpg")
    photos.table("image,tags\na.jpg,cat\nb.jpg,dog\n")
    photos.ingest(quarantine_limit=0.9)
    used, reason = photos.quarantine()["a.jpg"]
    assert used == "no"
    assert "line 2: 'a.jpg' fits several photos: x/a.jpg, y/a.jpg" in reason


def test_classes_default_to_the_tags_that_occur(photos: Photos) -> None:
    photos.add("a.jpg")
    photos.add("b.jpg")
    photos.table("image,tags\na.jpg,Zebra;hot dog\nb.jpg,zebra; HOT_DOG ;ant\n")
    photos.ingest(classes=[])
    dataset = read_dataset(photos.config(classes=[]).data)
    assert dataset.classes.names == ("ant", "hot dog", "Zebra")
    assert photos.tags("b") == ["Zebra", "hot dog", "ant"]


def test_prompts_and_backgrounds_are_honoured(photos: Photos) -> None:
    photos.add("a.jpg")
    photos.table("image,tags\na.jpg,cat\n")
    data = photos.config(prompts={"cat": "cat pet"}, backgrounds=["lawn"]).data
    classes = read_dataset(data).classes
    assert classes.prompts == ("cat pet", "dog", "teddy bear")
    assert classes.backgrounds == ("lawn",)


def test_split_column(photos: Photos) -> None:
    for name in "abcde":
        photos.add(f"{name}.jpg")
    photos.table(
        "image,tags,split\na.jpg,cat,train\nb.jpg,cat,Validation\nc.jpg,dog,test\nd.jpg,dog,\n"
        "e.jpg,cat,training\n"
    )
    photos.ingest()
    splits = {image: sample.split for image, sample in photos.samples().items()}
    assert splits == {"a": "train", "b": "val", "e": "train"}
    assert photos.quarantine()["c"][0] == "skipped"
    assert photos.quarantine()["d"] == ("no", "the split column is empty (line 5)")
    photos.ingest(val_list="test")
    splits = {image: sample.split for image, sample in photos.samples().items()}
    assert splits == {"a": "train", "c": "val", "e": "train"}
    photos.ingest(val_list="")
    assert photos.quarantine()["b"][0] == "skipped"


def test_splits_from_text_files(photos: Photos) -> None:
    for name in "abc":
        photos.add(f"{name}.jpg")
    photos.table("image,tags\na.jpg,cat\nc.jpg,cat\n")
    (photos.root / "train.txt").write_text("a.jpg\ngone.jpg\n")
    (photos.root / "held.txt").write_text("b\n")
    photos.ingest(train_list="train.txt", val_list="held.txt")
    splits = {image: sample.split for image, sample in photos.samples().items()}
    assert splits == {"a": "train", "b": "val"}
    assert photos.quarantine() == {
        "gone.jpg": ("no", "missing file (train.txt: 'gone.jpg')"),
        "b": ("yes", "no tag: predicted only"),
        "c": ("skipped", "in no list"),
    }
    (photos.root / "held.txt").write_text("a\n")
    with pytest.raises(DataError, match="is in the training list, too"):
        photos.ingest(train_list="train.txt", val_list="held.txt")
    with pytest.raises(DataError, match="no such list of photos"):
        photos.ingest(train_list="nowhere.txt")


def test_masks_and_hidden_files_are_no_photos(photos: Photos) -> None:
    photos.add("a.jpg")
    photos.add("masks/a.png")
    photos.add(".hidden/b.jpg")
    photos.add("._a.jpg", format="JPEG")
    photos.table("image,tags\na.jpg,cat\n")
    photos.ingest(masks=str(photos.root / "masks"))
    assert list(photos.samples()) == ["a"]
    assert photos.quarantine() == {}


def test_circular_links_end(photos: Photos) -> None:
    photos.add("sub/a.jpg")
    (photos.root / "sub" / "loop").symlink_to(photos.root)
    photos.table("image,tags\na.jpg,cat\n")
    photos.ingest()
    assert list(photos.samples()) == ["sub/a"]


def test_no_class_at_all(photos: Photos) -> None:
    photos.add("a.jpg")
    photos.table("image,tags\na.jpg,\n")
    with pytest.raises(DataError, match="no class"):
        photos.ingest(classes=[])


def test_serialised_and_invisible_tags(photos: Photos) -> None:
    for name in "abcd":
        photos.add(f"{name}.jpg")
    photos.table(
        'image,tags\na.jpg,"[\'cat\', \'dog\']"\nb.jpg,["dog", "cat"]\n'
        "c.jpg,cat\u200b\uff1b\uff44og\nd.jpg,{'cat': 1}\n"
    )
    photos.ingest(classes=[])
    assert read_dataset(photos.config(classes=[]).data).classes.names == ("cat", "dog")
    assert [photos.tags(image) for image in "abc"] == [
        ["cat", "dog"],
        ["dog", "cat"],
        ["cat", "dog"],
    ]
    used, reason = photos.quarantine()["d"]
    assert (used, reason.partition(":")[0]) == ("no", "tags that are no list of names")


@pytest.mark.parametrize("classes", [[], ["cat"]])
def test_background_rows_are_named(photos: Photos, classes: list[str]) -> None:
    photos.add("a.jpg")
    photos.table("image,tags\na.jpg,cat\nb.jpg,cat;__Background__\nc.jpg,['background']\n")
    message = r"tags\.csv: the tag '__Background__' \(line 3, 4\): label 0 is the background"
    with pytest.raises(DataError, match=message):
        read_dataset(photos.config(classes=classes).data)


def test_a_tag_made_of_other_tags_is_refused(photos: Photos) -> None:
    """A forgotten separator would be a class of its own."""
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        photos.add(name)
    photos.table("image,tags\na.jpg,cat\nb.jpg,Dog\nc.jpg,dog cat\n")
    with pytest.raises(DataError, match="the tag 'dog cat' consists of the tags dog and cat"):
        read_dataset(photos.config(classes=[]).data)
    photos.ingest(classes=["dog", "cat"])
    assert photos.tags("c") == ["dog", "cat"]


def test_a_row_with_too_many_cells(photos: Photos) -> None:
    photos.add("a.jpg")
    photos.add("b.jpg")
    photos.table("image,tags,split\na.jpg,['cat', 'dog'],train\nb.jpg,cat,tr\u200bain,,\n")
    photos.ingest()
    assert photos.tags("b") == ["cat"]
    assert photos.quarantine()["a"] == (
        "no", "too many cells (line 2): 4, the header has 3; put the tags into quotation marks",
    )  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "{absolute}/sub/a.jpg",
        "{linked}/sub/a.jpg",
        "file://{absolute}/sub/a.jpg",
        "photos/sub/a.jpg",
        "C:\\pictures\\sub\\a.jpg",
        "\\\\server\\share\\a.jpg",
        "/home/other/photos/sub/a",
        "https://host/files/a.jpg",
        "sub/\u200ba.JPG",
        "sub\uff0fa.jpg",
    ],
)
@pytest.mark.parametrize("root", ["photos", "link", "{absolute}"])
def test_paths_lead_to_the_photo(
    photos: Photos, name: str, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = photos.add("sub/a.jpg")
    monkeypatch.chdir(photos.root.parent)
    link = photos.root.parent / "link"
    link.symlink_to(photos.root)
    places = {"absolute": photos.root, "linked": link}
    photos.table(f"image,tags\n{name.format_map(places)},cat\n")
    dataset = read_dataset(photos.config(root=root.format_map(places)).data)
    (image,) = dataset.candidates
    assert (image.id, image.tags, image.problem) == ("sub/a", (0,), None)
    assert image.path.samefile(path)


def test_paths_of_another_machine_are_named(
    photos: Photos, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.jpg", "x/b.jpg", "y/b.jpg"):
        photos.add(name)
    photos.table(
        "image,tags\n/home/other/a.jpg,cat\n/home/other/b.jpg,cat\n/home/other/c.jpg,cat\n"
    )
    dataset = read_dataset(photos.config().data)
    problems = {image.id: image.problem for image in dataset.candidates}
    assert problems["a"] is None
    assert "fits several photos: x/b.jpg, y/b.jpg" in str(problems["/home/other/b.jpg"])
    assert problems["/home/other/c.jpg"] == "missing file (tags.csv line 4)"
    (record,) = caplog.records
    assert "1 path on another machine; the photos" in record.getMessage()
    assert f"{photos.root / 'a.jpg'} for '/home/other/a.jpg'" in record.getMessage()


def test_why_a_photo_is_missing(photos: Photos) -> None:
    photos.add("a.jpg")
    photos.add("sub/b.jpg")
    (photos.root / "notes.txt").touch()
    outside = photos.root.parent / "a.jpg"
    outside.touch()
    photos.add(".c.jpg")
    photos.table(
        f"image,tags\na.png,cat\nother/b.jpg,cat\nnotes.txt,cat\nsub,cat\n{outside},cat\nc.jpg,cat\n"
        "../a.jpg,cat\n.c.jpg,cat\n"
    )
    candidates = read_dataset(photos.config().data).candidates
    assert [image.problem for image in candidates[:8]] == [
        f"missing file (tags.csv line 2); did you mean {photos.root / 'a.jpg'}?",
        f"missing file (tags.csv line 3); did you mean {photos.root / 'sub/b.jpg'}?",
        "format not read: .txt (tags.csv line 4); it is no ending of photos",
        "is a folder (tags.csv line 5); name each photo",
        "missing file (tags.csv line 6): outside of data.root; move it there",
        "missing file (tags.csv line 7)",
        "missing file (tags.csv line 8): outside of data.root; move it there",
        "left out (tags.csv line 9): hidden files, masks and results are no photos",
    ]


def test_unusual_endings(photos: Photos) -> None:
    for name in ("noext", "pic.jpg_large", "beside.jpg_large", "both.jpg"):
        photos.add(name, format="JPEG")
    for name in ("raw.DNG", "both.dng", "new.jxl", "new.json", "train.txt"):
        (photos.root / name).write_bytes(b"\xff\x0a" + bytes(50))
    Image.fromarray(picture()).save(photos.root / "preview.dng", format="TIFF")
    photos.table(
        "image,tags\nnoext,cat\npic.jpg_large,cat\nraw.DNG,cat\nnew,cat\nboth,dog\npreview.dng,cat\n"
    )
    photos.ingest(quarantine_limit=1)
    assert sorted(photos.samples()) == ["both", "noext", "pic"]
    with (photos.out / "quarantine.csv").open(encoding="utf-8") as stream:
        rows = {Path(row["file"]).name: row for row in csv.DictReader(stream)}
    assert {name: row["used"] for name, row in rows.items()} == {
        "noext": "yes", "pic.jpg_large": "yes", "raw.DNG": "no", "new.jxl": "no",
        "preview.dng": "no", "both.dng": "skipped", "beside.jpg_large": "skipped",
    }  # fmt: skip
    assert rows["raw.DNG"]["reason"].startswith("format not read: .DNG (")
    assert rows["new.jxl"]["reason"].startswith("format not read: .jxl (JPEG XL)")
    assert rows["preview.dng"]["reason"].startswith("format not read: .dng (a camera's raw photo)")
    assert "'.jpg_large' is not an ending of photos" in rows["beside.jpg_large"]["reason"]


def test_a_folder_without_its_table(photos: Photos) -> None:
    with pytest.raises(DataError, match=r"tags\.csv: no such table of tags; expected a CSV with"):
        photos.ingest()
    photos.add("holiday/a.jpg")
    (photos.root / "holiday" / "tags.csv").write_text("image,tags\na.jpg,cat\n")
    with pytest.raises(DataError, match=r"did you mean .*photos/holiday\?"):
        photos.ingest()
