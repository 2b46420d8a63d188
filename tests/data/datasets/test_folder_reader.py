import pytest

from wsss.data.datasets.registry import read_dataset
from wsss.data.errors import DataError

from ..conftest import Photos


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


def test_exact_name_wins_over_the_same_name_in_a_sub_folder(photos: Photos) -> None:
    photos.add("a.jpg")
    photos.add("sub/a.jpg")
    photos.table("image,tags\na.jpg,cat\nsub/a.jpg,dog\n")
    photos.ingest()
    assert (photos.tags("a"), photos.tags("sub/a")) == (["cat"], ["dog"])


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
