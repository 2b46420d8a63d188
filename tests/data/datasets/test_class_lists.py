from pathlib import Path

import pytest

from wsss.artifacts.errors import ArtifactError
from wsss.config.load import from_mapping
from wsss.data.datasets.classes import ClassList, class_list, customise, folder_classes
from wsss.data.datasets.tags import TagReader
from wsss.data.errors import DataError
from wsss.data.manifest_folder import read_classes, write_classes


def test_voc() -> None:
    voc = class_list("voc")
    assert len(voc.names) == len(voc.prompts) == 20
    assert voc.label_count == 21
    assert voc.names == tuple(sorted(voc.names))
    differing = {n: p for n, p in zip(voc.names, voc.prompts, strict=True) if n != p}
    assert differing == {
        "bird": "bird avian",
        "chair": "chair seat",
        "person": "person with clothes,people,human",
        "tvmonitor": "tvmonitor screen",
    }
    assert len(set(voc.backgrounds)) == 25
    assert voc.backgrounds[0] == "ground"
    assert voc.backgrounds[-1] == "sign"


def test_coco() -> None:
    coco = class_list("coco")
    assert len(set(coco.names)) == 80
    prompts = dict(enumerate(coco.prompts))
    assert [prompts[i] for i in (0, 3, 4, 14, 24, 27, 31, 35, 44)] == [
        "person with clothes,people,human", "motorbike", "aeroplane", "bird avian", "backpack,bag",
        "necktie", "snowboard", "glove", "dessertspoon",
    ]  # fmt: skip
    assert [prompts[i] for i in (56, 57, 58, 60, 62, 65, 78, 79)] == [
        "chair seat", "sofa", "pottedplant", "diningtable", "tvmonitor screen", "remote control",
        "hairdrier,blowdrier", "toothbrush",
    ]  # fmt: skip
    voc = class_list("voc").backgrounds
    assert set(voc) - set(coco.backgrounds) == {"keyboard", "sign"}
    assert len(coco.backgrounds) == 23


def test_published_coco_keeps_its_slip_and_nothing_else_differs() -> None:
    pairs = zip(class_list("coco").prompts, class_list("coco", "published").prompts, strict=True)
    assert [(a, b) for a, b in pairs if a != b] == [("snowboard", "sknowboard")]
    assert class_list("voc") == class_list("voc", "published")


def test_demo_has_no_background_that_is_a_class() -> None:
    demo = class_list("demo")
    assert len(demo.names) >= 8
    assert not set(demo.names) & set(demo.backgrounds)


@pytest.mark.parametrize(
    ("data", "tag", "expected"),
    [
        ("coco", "couch", "couch"), ("coco", "sofa", "couch"), ("coco", "tvmonitor", "tv"),
        ("coco", "motorbike", "motorcycle"), ("coco", "Dining_Table", "dining table"),
        ("coco", "diningtable", "dining table"), ("voc", "couch", "sofa"),
        ("voc", "TV", "tvmonitor"),
        ("voc", "potted  plant", "pottedplant"), ("voc", "airplane", "aeroplane"),
    ],
)  # fmt: skip
def test_other_spellings(data: str, tag: str, expected: str) -> None:
    classes = class_list(data)
    tags = TagReader(classes).names([tag])
    assert [classes.names[index] for index in tags.indices] == [expected]


def test_customised() -> None:
    changed = customise(class_list("voc"), {"Aeroplane": "jet"}, ["fog"])
    assert changed.prompts[:2] == ("jet", "bicycle")
    assert changed.backgrounds == ("fog",)
    with pytest.raises(DataError, match=r"'aeroplain' is no class; did you mean 'aeroplane'\?"):
        customise(class_list("voc"), {"aeroplain": "jet"}, None)
    with pytest.raises(DataError, match="'boat' is one of the classes"):
        customise(class_list("voc"), {}, ["fog", "boat"])


def test_words_of_prompts_are_plain_text() -> None:
    changed = customise(class_list("voc"), {"\uff23at\u200b": "cat\uff0ckitty\xad"}, ["f\u200bog"])
    assert changed.prompts[7] == "cat,kitty"
    assert changed.backgrounds == ("fog",)
    for prompts, backgrounds in (({"cat": "['cat', 'kitty']"}, None), ({}, ['["fog"]'])):
        with pytest.raises(DataError, match=r"data\.(prompts|backgrounds): .* is no word"):
            customise(class_list("voc"), prompts, backgrounds)
    with pytest.raises(DataError, match="'boat' is one of the classes"):
        customise(class_list("voc"), {}, ["b\u200boat"])


def test_folder_backgrounds_are_no_classes() -> None:
    classes = folder_classes(["Tree", "crane"])
    assert "tree" not in classes.backgrounds
    assert "water" in classes.backgrounds


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no class"),
        (["cat", ""], "must not be empty"),
        (["a;b"], "'a;b': holds ';', which separates names"),
        (["a\u3001b"], "which separates names"),
        (["['cat'", "'dog']"], "holds a bracket or begins with a quotation mark"),
        (["Hot dog", "hot_dog"], "'hot_dog' is the same as 'Hot dog'"),
        ([f"class {i}" for i in range(255)], "at most 254"),
    ],
)
def test_bad_names(names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        folder_classes(names)


def test_classes_are_for_folders_only() -> None:
    from wsss.data.datasets.registry import read_dataset

    config = from_mapping({"data": {"kind": "voc", "root": "nowhere", "classes": ["cat"]}})
    with pytest.raises(DataError, match="for kind folder"):
        read_dataset(config.data)


def test_round_trip(tmp_path: Path) -> None:
    classes = ClassList("folder", ("Käse", "a, b"), ("cheese", "x"), ("sky",))
    write_classes(tmp_path / "classes.json", classes)
    assert read_classes(tmp_path / "classes.json") == classes


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "a", "names": 3}'])
def test_damaged_list(tmp_path: Path, text: str) -> None:
    path = tmp_path / "classes.json"
    with pytest.raises(ArtifactError, match="run ingest first"):
        read_classes(path)
    path.write_text(text)
    with pytest.raises(ArtifactError, match=r"classes\.json: (is no class list|carries no digest)"):
        read_classes(path)
