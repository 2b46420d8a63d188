"""Complete and incomplete folders of VOC and COCO, made small by lowering the expected counts."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from wsss.__main__ import app
from wsss.config.data import DataConfig
from wsss.data.check.check import check_configured, guess_kind
from wsss.data.check.coco import COUNTS as COCO_COUNTS
from wsss.data.check.coco import check_coco
from wsss.data.check.report import Report
from wsss.data.check.voc import check_voc
from wsss.data.datasets.coco import CATEGORY_IDS
from wsss.data.datasets.voc import COUNTS as VOC_COUNTS
from wsss.data.datasets.words import COCO_NAMES
from wsss.data.errors import DataError

from ..conftest import picture, write_xml

ROOT = Path(__file__).parents[3]
SHARED = ROOT / os.environ.get("WSSS_SHARED", "../shared") / "data"
LISTS = {"train": ["a", "b"], "trainaug": ["a", "b", "c"], "val": ["d"]}


@pytest.fixture
def voc(make_voc: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A complete data set with lists of 2, 3 and 1 images; masks that must not be opened."""
    root = make_voc({image: ["cat", "dog"] for image in "abcd"}, **LISTS)
    for name in ("SegmentationClass", "SegmentationClassAug"):
        (root / name).mkdir()
        for image in "abcd":
            (root / name / f"{image}.png").write_text("no mask")
    counts = {name: len(ids) for name, ids in LISTS.items()} | {"test": 1}
    for module in ("check.voc", "datasets.trainaug"):
        monkeypatch.setattr(f"wsss.data.{module}.COUNTS", counts)
    return root


def whats(report: Report) -> str:
    return "\n".join(map(str, report.problems))


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, arguments)], terminal_width=200)


def test_the_counts_are_those_of_the_papers() -> None:
    assert VOC_COUNTS == {"train": 1464, "trainaug": 10582, "val": 1449, "test": 1456}
    assert COCO_COUNTS == {"train": (82783, 82081), "val": (40504, 40137)}


def test_complete_voc(voc: Path) -> None:
    report = check_voc(voc)
    assert report.complete, whats(report)
    assert report.facts == [
        ("train", "2 images, 2 masks in SegmentationClass"),
        ("trainaug", "3 images, 3 masks in SegmentationClassAug"),
        ("val", "1 images, 1 masks in SegmentationClass"),
    ]
    done = invoke("check", voc)
    assert done.exit_code == 0
    assert done.stdout.rstrip().endswith("Complete.")


def test_all_that_is_missing_from_voc_is_reported_at_once(voc: Path) -> None:
    (voc / "JPEGImages" / "c.jpg").unlink()
    cut = (voc / "JPEGImages" / "a.jpg").read_bytes()
    (voc / "JPEGImages" / "a.jpg").write_bytes(cut[:-20])
    (voc / "Annotations" / "b.xml").unlink()
    write_xml(voc, "d", ["unicorn"])
    (voc / "SegmentationClassAug" / "b.png").unlink()
    shutil.rmtree(voc / "SegmentationClass")
    (voc / "ImageSets/Segmentation/val.txt").write_text("d\nb\n")
    text = whats(check_voc(voc))
    assert "val.txt: 2 images, expected 1" in text
    assert "train and val share 1 images, expected none: b" in text
    assert "trainaug and val share 1 images, expected none: b" in text
    assert "JPEGImages: 1 of 4 listed images are missing: c.jpg" in text
    assert "JPEGImages: 1 images cannot be read: a.jpg (cannot be decoded" in text
    assert "Annotations: 1 of 4 images have no tag: b" in text
    assert "1 listed images cannot be used: d (unknown tag 'unicorn')" in text
    assert "SegmentationClassAug: 1 of 3 images of trainaug have no mask: b" in text
    assert "SegmentationClass: 2 of 2 images of train have no mask: a, b" in text
    done = invoke("check", voc)
    assert done.exit_code == 1
    assert "Not complete: 10 problems." in done.stdout
    assert "host.robots.ox.ac.uk/pascal/VOC/voc2012" in done.stdout
    assert "Semantic Boundaries Dataset" in done.stdout


def test_trainaug_must_hold_train_and_each_id_once(voc: Path) -> None:
    (voc / "ImageSets/Segmentation/trainaug.txt").write_text("a\nc\nc\n")
    text = whats(check_voc(voc))
    assert "trainaug lacks 1 images of train: b" in text
    assert "trainaug.txt: 1 images are listed more than once: c" in text


def test_a_padded_jpeg_is_decoded_and_complete(voc: Path) -> None:
    path = voc / "JPEGImages" / "a.jpg"
    path.write_bytes(path.read_bytes() + bytes(7))
    assert check_voc(voc).complete


def test_decoding_detects_damage_behind_the_header(voc: Path) -> None:
    path = voc / "JPEGImages" / "a.jpg"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 40] + b"\xff\xd9")  # cut off, with an end
    assert check_voc(voc).complete
    assert "a.jpg (cannot be decoded" in whats(check_voc(voc, decode=True))
    assert invoke("check", voc, "--decode").exit_code == 1


def test_a_wrong_annotated_size_is_a_note(voc: Path) -> None:
    path = voc / "Annotations" / "a.xml"
    size = "<size><width>16</width><height>{}</height></size></annotation>"
    path.write_text(path.read_text().replace("</annotation>", size.format(12)))
    assert not [note for note in check_voc(voc).notes if "size" in note]
    path.write_text(path.read_text().replace("<height>12<", "<height>13<"))
    report = check_voc(voc)
    assert report.complete
    (note,) = [note for note in report.notes if "size" in note]
    assert "a.jpg (16 x 12, the annotation says 16 x 13)" in note


def test_the_test_list_needs_images_and_nothing_else(voc: Path) -> None:
    assert any("test" in note for note in check_voc(voc).notes)
    (voc / "ImageSets/Segmentation/test.txt").write_text("t\n")
    assert "1 of 5 listed images are missing: t.jpg" in whats(check_voc(voc))
    Image.fromarray(picture()).save(voc / "JPEGImages" / "t.jpg")
    report = check_voc(voc)
    assert report.complete, whats(report)
    assert ("test", "1 images") in report.facts


def test_a_configuration_is_checked_for_what_it_reads(voc: Path) -> None:
    shutil.rmtree(voc / "SegmentationClassAug")
    (voc / "ImageSets/Segmentation/trainaug.txt").unlink()
    shutil.rmtree(voc / "Annotations")
    (voc / "tags.csv").write_text("image,tags\na,cat\nb,dog\n")
    data = DataConfig(kind="voc", root=str(voc), tags="tags.csv", val_list="")
    assert check_configured(data).complete
    (voc / "tags.csv").write_text("image,tags\na,cat\n")
    assert "tags.csv: 1 of 2 images have no tag: b" in whats(check_configured(data))
    assert "Annotations: no such folder" in whats(
        check_configured(data.model_copy(update={"tags": "xml"}))
    )
    with pytest.raises(DataError, match="only voc and coco have known contents"):
        check_configured(DataConfig())


def test_the_configuration_of_the_command_line(voc: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps({"data": {"kind": "voc", "root": str(voc)}}))
    assert invoke("check", "--config", config).exit_code == 0
    assert invoke("check", voc, "--config", config).exit_code == 2
    assert invoke("check").exit_code == 2


def test_which_data_set_a_folder_is(voc: Path, tmp_path: Path) -> None:
    assert guess_kind(voc) == "voc"
    (tmp_path / "coco" / "train2014").mkdir(parents=True)
    assert guess_kind(tmp_path / "coco") == "coco"
    with pytest.raises(DataError, match=r"did you mean .*VOC2012\?"):
        guess_kind(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        guess_kind(tmp_path / "gone")


@pytest.fixture
def coco(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A complete data set: 3 and 2 images, of which 2 and 1 have objects."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    categories = [{"id": i, "name": n} for i, n in zip(CATEGORY_IDS, COCO_NAMES, strict=True)]
    for part, names in {"train": "abc", "val": "de"}.items():
        (root / f"{part}2014").mkdir()
        images, annotations = [], []
        for id, name in enumerate(names):
            Image.fromarray(picture(id)).save(root / f"{part}2014" / f"{name}.jpg")
            images.append({"id": id, "file_name": f"{name}.jpg", "width": 16, "height": 12})
            if id:
                annotations.append({"id": id, "image_id": id, "category_id": 1})
        content = {"categories": categories, "images": images, "annotations": annotations}
        (root / f"annotations/instances_{part}2014.json").write_text(json.dumps(content))
    monkeypatch.setattr("wsss.data.check.coco.COUNTS", {"train": (3, 2), "val": (2, 1)})
    return root


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_complete_coco(coco: Path) -> None:
    report = check_coco(coco)
    assert report.complete, whats(report)
    assert report.facts[0] == ("train", "3 images, 2 with objects, 2 instances, 80 categories")
    assert invoke("check", coco).exit_code == 0


def test_names_of_the_json_may_have_a_folder(coco: Path) -> None:
    """As the reader takes them."""
    path = coco / "annotations/instances_val2014.json"
    images = json.loads(path.read_text())["images"]
    for image, prefix in zip(images, ("val2014/", "images\\val2014\\"), strict=True):
        image["file_name"] = prefix + image["file_name"]
    edit(path, images=images)
    report = check_coco(coco)
    assert report.complete, whats(report)


def test_all_that_is_missing_from_coco_is_reported_at_once(coco: Path) -> None:
    (coco / "val2014" / "d.jpg").unlink()
    Image.fromarray(picture(0, height=16, width=12)).save(coco / "val2014" / "e.jpg")
    path = coco / "annotations/instances_train2014.json"
    lost = [{"id": 1, "image_id": 99, "category_id": 1}]
    edit(path, annotations=lost)
    text = whats(check_coco(coco))
    assert "instances_train2014.json: 0 images with objects, expected 2" in text
    assert "instances of 1 images that it does not list: 99" in text
    assert "val2014: 1 of 5 listed images are missing: d.jpg" in text
    assert "e.jpg (12 x 16, the JSON says 16 x 12)" in text
    path.unlink()
    edit(coco / "annotations/instances_val2014.json", categories=[{"id": 1, "name": "person"}])
    report = check_coco(coco)
    assert "instances_train2014.json: cannot be read" in whats(report)
    assert "expected COCO's 80 categories, but it has 1" in whats(report)
    assert {problem.source for problem in report.problems} == {"coco-annotations"}
    shutil.rmtree(coco / "annotations")
    assert len(check_coco(coco).problems) == 2


def test_only_the_parts_of_a_configuration(coco: Path) -> None:
    shutil.rmtree(coco / "val2014")
    data = DataConfig(kind="coco", root=str(coco), val_list="")
    assert check_configured(data).complete
    data = data.model_copy(update={"val_list": "val-with-objects"})
    assert "val2014: 2 of 5 listed images are missing" in whats(check_configured(data))


@pytest.fixture
def sbd(tmp_path: Path) -> Path:
    """SBD's lists, which overlap with both of VOC's."""
    folder = tmp_path / "sbd"
    folder.mkdir()
    (folder / "train.txt").write_text("c\nd\n")
    (folder / "val.txt").write_text("a\nd\n")
    return folder


def test_trainaug_is_rebuilt_from_its_sources(voc: Path, sbd: Path) -> None:
    path = voc / "ImageSets/Segmentation/trainaug.txt"
    path.unlink()
    done = invoke("trainaug", voc, sbd)
    assert done.exit_code == 0, done.output
    assert path.read_text() == "a\nb\nc\n"
    assert check_voc(voc).complete
    elsewhere = sbd / "mine.txt"
    assert invoke("trainaug", voc, sbd, "--out", elsewhere).exit_code == 0
    assert elsewhere.read_text() == path.read_text()


def test_a_trainaug_of_another_length_is_not_written(voc: Path, sbd: Path) -> None:
    (sbd / "val.txt").write_text("x\n")
    path = voc / "ImageSets/Segmentation/trainaug.txt"
    before = path.read_text()
    done = invoke("trainaug", voc, sbd)
    assert isinstance(done.exception, DataError)
    assert "their lists give 4 ids, expected 3" in str(done.exception)
    assert path.read_text() == before


@pytest.mark.skipif(not SHARED.is_dir(), reason="WSSS_SHARED has no data")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("voc-subset", ["train.txt: 300 images, expected 1464", "trainaug.txt: no such list"]),
        ("coco-subset", ["val2014.json: 150 images, expected 40504"]),
    ],
)
def test_the_subsets_are_incomplete(name: str, expected: list[str]) -> None:
    done = invoke("check", SHARED / name)
    assert done.exit_code == 1
    for text in expected:
        assert text in done.stdout
    assert "missing" not in done.stdout
    assert "cannot be read" not in done.stdout


def test_many_files_are_read_in_processes(voc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsss.data.check.image_headers._FILES_WORTH_A_POOL", 2)
    (voc / "JPEGImages" / "b.jpg").write_bytes(b"no image")
    report = check_voc(voc, workers=2)
    assert "1 images cannot be read: b.jpg (not an image" in whats(report)


def test_names_are_cut_but_counted() -> None:
    report = Report("x")
    report.add("gone", list(map(str, range(9))))
    assert "  - gone: 0, 1, 2, 3 and 5 more" in str(report)
    assert len(report.problems[0].names) == 9
