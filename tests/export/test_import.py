"""The way back: what was exported, corrected elsewhere and imported is what scoring reads."""

import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from wsss.artifacts.watch import files_below
from wsss.config.data import DataConfig
from wsss.data.datasets.files import photo_files
from wsss.data.images.label_png import save_label_png
from wsss.data.manifest_folder import load
from wsss.export.brush import encode_brush
from wsss.export.errors import ExportError
from wsss.export.own_masks import own_masks, refuse_own_folder, tolerance_of
from wsss.photos.settings import HEADER
from wsss.score.truth.corrections.importer import Source, import_masks
from wsss.score.truth.corrections.label_studio import decode_brush
from wsss.score.truth.corrections.unchanged import is_unchanged
from wsss.score.truth.errors import TruthError
from wsss.score.truth.find import find_truth

from .conftest import Results
from .test_source import wsss


def annotated(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As Label Studio writes tasks whose predictions were accepted as they are."""
    return [
        {"data": t["data"], "annotations": [{"result": t["predictions"][0]["result"]}]}
        for t in tasks
    ]


def exported(results: Results, form: Source, folder: Path, product: str, **options: Any) -> Path:
    """The file that comes back from a program that changed nothing."""
    if form == "cvat":
        results.export("cvat", folder / "cvat.zip", product=product)
        return folder / "cvat.zip"
    if form == "png":
        results.export("folder", folder / "folder", product=product)
        return folder / "folder/labels"
    results.export(form, folder / form, product=product, **options)
    if form == "coco":
        return folder / "coco/annotations/instances_train.json"
    tasks = folder / "label-studio/tasks.json"
    tasks.write_text(json.dumps(annotated(json.loads(tasks.read_text()))))
    return tasks


def imported(results: Results, source: Path, form: Source, out: Path, **options: Any) -> str:
    return str(import_masks(source, form, results.folder / "manifest", out, **options))


@pytest.mark.parametrize(
    ("form", "product"),
    [("coco", "label"), ("label-studio", "train"), ("cvat", "train"), ("png", "train")],
)
def test_masks_come_back_as_they_went(
    results: Results, form: Source, product: str, tmp_path: Path
) -> None:
    source = exported(results, form, tmp_path, product)
    out = tmp_path / "hand"
    keep = {"keep_empty": True} if form == "coco" else {}
    text = imported(results, source, form, out, **keep)
    maps = results.labels if product == "label" else results.train
    expected = {key: labels for key, labels in maps.items() if form != "coco" or key[0] == "train"}
    assert text.startswith(f"{len(expected)} masks of 9 images in {out}: {len(expected)} new")
    for (_, image), labels in expected.items():
        np.testing.assert_array_equal(np.array(Image.open(out / f"{image}.png")), labels)
    before = (out / "a.png").stat().st_mtime_ns
    assert f"0 new, 0 changed, {len(expected)} as before" in imported(
        results, source, form, out, **keep
    )
    assert (out / "a.png").stat().st_mtime_ns == before
    manifest, _ = load(results.folder / "manifest")
    for split in ("train", "val"):
        truth = find_truth(DataConfig(kind="folder", masks=str(out)), manifest.split(split), split)
        if form == "coco":
            break  # of the held-out images there is none
        assert not truth.missing


@pytest.mark.parametrize("form", ["coco", "png"])
def test_masks_among_the_photos_are_no_photos(
    results: Results, form: Source, tmp_path: Path
) -> None:
    """Else they would be listed as photos without tags, and ingest would run again for them.

    An import from the folder around them finds them all the same.
    """
    photos = tmp_path / "photos"
    shutil.copytree(results.folder.parents[1] / "photos", photos)
    before = {entry.path for entry in photo_files(photos)}
    source = exported(results, form, photos / "for others", "label")
    imported(results, photos / "for others" if form == "png" else source, form, photos / "hand")
    assert {entry.path for entry in photo_files(photos)} == before
    assert {Path(entry.path).suffix for entry in files_below(photos / "hand")} == {".png"}


def test_no_photo_is_overwritten(results: Results, tmp_path: Path) -> None:
    source = exported(results, "png", tmp_path, "label")
    photo = results.folder.parents[1] / "photos/a.jpg"
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.png").symlink_to(photo)
    before = photo.read_bytes()
    with pytest.raises(TruthError, match=r"a\.png: is a photo of the run; name another folder"):
        imported(results, source, "png", tmp_path / "photos")
    assert photo.read_bytes() == before


@pytest.mark.parametrize("place", ["masks", "masks/train/png", "gallery/masks"])
def test_the_run_s_own_masks_are_not_replaced(results: Results, place: str) -> None:
    """Its next run would draw them again, over the corrections."""
    with pytest.raises(ExportError, match="the run writes its own masks there"):
        refuse_own_folder(results.folder / place, results.folder)
    refuse_own_folder(results.folder.parents[1] / "masks", results.folder)


def test_masks_of_photos_are_not_replaced(results: Results, tmp_path: Path) -> None:
    shutil.copytree(results.folder, tmp_path / "p-masks/results/photos")
    (tmp_path / "p-masks/config.yaml").write_text(HEADER)
    for run in (tmp_path / "p-masks", tmp_path / "p-masks/results/photos"):
        with pytest.raises(ExportError, match=r"--out .*p-masks/masks: the run writes its own"):
            refuse_own_folder(tmp_path / "p-masks/masks", run)
        refuse_own_folder(tmp_path / "hand", run)


def test_a_corrected_part_is_imported_and_scores_that_part(
    results: Results, tmp_path: Path
) -> None:
    source = exported(results, "label-studio", tmp_path, "label")
    tasks = json.loads(source.read_text())
    tasks[1]["annotations"] = []
    tasks[2]["annotations"][0]["was_cancelled"] = True
    tasks[3]["data"]["id"] = "of another run"
    painted = np.zeros(results.labels["train", tasks[0]["data"]["id"]].shape, np.uint8)
    painted[3:9, 4:7] = 1
    result = json.loads(json.dumps(tasks[0]["annotations"][0]["result"][0]))
    result["value"] |= {"rle": encode_brush(painted), "brushlabels": ["Tree & Bush"]}
    tasks[0]["annotations"].append({"result": [*tasks[0]["annotations"][0]["result"], result]})
    source.write_text(json.dumps(tasks[:5]))
    out = tmp_path / "hand"
    text = imported(results, source, "label-studio", out)
    assert text.startswith(f"2 masks of 9 images in {out}: 2 new")
    assert "since nothing was drawn there: 2 images" in text
    assert "since the run has none so called: 1 images ('of another run')" in text
    image = tasks[0]["data"]["id"]
    expected = np.where(painted, 3, results.labels["train", image])
    np.testing.assert_array_equal(np.array(Image.open(out / f"{image}.png")), expected)
    manifest, _ = load(results.folder / "manifest")
    truth = find_truth(DataConfig(kind="folder", masks=str(out)), manifest.split("train"), "train")
    assert (len(truth.sources), len(truth.missing)) == (2, 5)


def test_outlines_of_other_programs_lie_the_smaller_on_top(
    results: Results, tmp_path: Path
) -> None:
    """Polygons, RLE that is not packed, other category ids, paths in file names."""
    height, width = results.labels["train", "a"].shape
    inner = np.zeros((height, width), np.uint8)
    inner[20:24, 30:33] = 1
    runs = np.diff(np.flatnonzero(np.diff(inner.ravel(order="F"), prepend=2, append=2))).tolist()
    content = {
        "images": [{"id": 7, "file_name": "upload/12/a.jpg", "width": width, "height": height}],
        "categories": [{"id": 40, "name": "Cat"}, {"id": 9, "name": "sailing_boat"}],
        "annotations": [
            {"id": 2, "image_id": 7, "category_id": 9,
             "segmentation": {"size": [height, width], "counts": runs}},
            {"id": 1, "image_id": 7, "category_id": 40,
             "segmentation": [[20, 10, 50, 10, 50, 40, 20, 40]]},
        ],
    }  # fmt: skip
    (tmp_path / "coco.json").write_text(json.dumps(content))
    imported(results, tmp_path / "coco.json", "coco", tmp_path / "hand")
    expected = np.zeros((height, width), np.uint8)
    expected[10:40, 20:50] = 1
    expected[20:24, 30:33] = 2
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "hand/a.png")), expected)
    assert rle.area(rle.frPyObjects(content["annotations"][0]["segmentation"], height, width)) == 12


def test_literal_blocks_of_brush_masks_are_read() -> None:
    """Label Studio itself writes them; the exports here consist of runs alone."""
    values = [0, 0, 0, 255] * 3 + [0] * 12
    bits = f"{24:032b}{7:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16))
    bits += "0" + "01" + f"{11:04b}" + "".join(f"{v:08b}" for v in values[:12])
    bits += "1" + "10" + f"{11:08b}" + f"{0:08b}"
    data = [
        int(bits.ljust(-(-len(bits) // 8) * 8, "0")[i : i + 8], 2) for i in range(0, len(bits), 8)
    ]
    np.testing.assert_array_equal(decode_brush(data, 2, 3), [[1, 1, 1], [0, 0, 0]])
    for wrong, text in ((data[:9], "cut off"), ([0] * 20, "holds 0 values, expected 24")):
        with pytest.raises(ValueError, match=text):
            decode_brush(wrong, 2, 3)


def edit_json(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return edit


def edit_zip(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            members = {member: archive.read(member) for member in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for member, content in members.items():
                archive.writestr(member, change(content) if member == name else content)

    return edit


def rename_category(content: Any) -> None:
    content["categories"][0]["name"] = "kat"


def shrink(content: Any) -> None:
    content["images"][0]["width"] -= 1


def break_outline(content: Any) -> None:
    content["annotations"][0]["segmentation"]["counts"] = "x"


def rename_brush(content: Any) -> None:
    content[0]["annotations"][0]["result"][0]["value"]["brushlabels"] = ["dog"]


def cut_brush(content: Any) -> None:
    content[0]["annotations"][0]["result"][0]["value"]["rle"] = [1, 2]


def turn_into_box(content: Any) -> None:
    content[0]["annotations"][0]["result"][0]["type"] = "rectanglelabels"


@pytest.mark.parametrize(
    ("form", "edit", "message"),
    [
        ("coco", edit_json(rename_category), r"train\.json: the label 'kat' is no class .* 'cat'"),
        ("coco", edit_json(shrink), r"the mask of 'a' is 60 x 83 pixels, its image is 61 x 83"),
        ("coco", edit_json(break_outline), r"the outline of annotation 1 \('a'\) cannot be drawn"),
        ("coco", lambda path: path.write_text("[]"), r"holds a list; expected an instances JSON"),
        ("coco", lambda path: path.write_text('{"images": []}'), r"lacks 'categories'; expected"),
        ("label-studio", edit_json(rename_brush), r"task 1: the label 'dog' is no class of the"),
        ("label-studio", edit_json(cut_brush), r"a brush mask of 'a' cannot be read .*cut off"),
        ("label-studio", edit_json(turn_into_box), r"type 'rectanglelabels'; only brush masks are"),
        ("label-studio", lambda path: path.write_text("{"), r"tasks\.json: cannot be read"),
        ("cvat", edit_zip("labelmap.txt", lambda b: b.replace(b"cat", b"dog")), "'dog' is no"),
        (
            "cvat",
            edit_zip("labelmap.txt", lambda b: re.sub(b"cat:.*\n", b"", b)),
            r"a\.png: has the colour \(128, 0, 0\), which labelmap\.txt does not name",
        ),
        ("cvat", edit_zip("SegmentationClass/a.png", lambda b: b[:200]), r"zip: cannot be read"),
        ("cvat", lambda path: path.write_bytes(b"PK"), r"zip: cannot be read .*expected CVAT"),
        (
            "png",
            lambda path: Image.fromarray(np.full((83, 61), 4, np.uint8)).save(path / "train/a.png"),
            r"a\.png: has label 4, but the classes of the run end at 3",
        ),
        (
            "png",
            lambda path: Image.fromarray(np.zeros((5, 5, 3), np.uint8)).save(path / "train/a.png"),
            r"a\.png: holds colours \(RGB\), expected label indices",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_run_is_refused(
    results: Results, form: Source, edit: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    source = exported(results, form, tmp_path, "label")
    edit(source)
    with pytest.raises(TruthError, match=message):
        imported(results, source, form, tmp_path / "hand")


def paint(path: Path, label: int = 1) -> None:
    """A correction: a small square in an index PNG."""
    labels = np.array(Image.open(path))
    labels[40:43, 2:5] = label
    save_label_png(path, labels)


@pytest.mark.parametrize(
    ("form", "product", "options"),
    [
        ("png", "label", {}),
        ("png", "train", {}),
        ("cvat", "label", {}),
        ("cvat", "train", {}),
        ("coco", "label", {}),
        ("coco", "train", {}),
        ("coco", "label", {"polygons": True}),
        ("coco", "train", {"polygons": True}),
        ("coco", "label", {"polygons": True, "tolerance": 0.0}),
        ("coco", "label", {"polygons": True, "tolerance": 3.0}),
    ],
)
def test_masks_that_nobody_changed_are_no_corrections(
    results: Results, form: Source, product: str, options: dict[str, Any], tmp_path: Path
) -> None:
    source = exported(results, form, tmp_path, product, **options)
    out = tmp_path / "hand"
    with own_masks(results.folder, tolerance_of(source) if form == "coco" else None) as run_masks:
        with pytest.raises(TruthError, match=r"every mask is as the run .* or pass --unchanged"):
            imported(results, source, form, out, run_masks=run_masks)
        assert not out.exists()
        change_one(source, form)
        text = imported(results, source, form, out, run_masks=run_masks)
    assert text.startswith(f"1 mask of 9 images in {out}: 1 new, 0 changed, 0 as before")
    assert "since the run has the same mask:" in text
    assert [path.name for path in out.rglob("*.png")] == ["a.png"]
    assert imported(results, source, form, out).startswith(("9 masks", "6 masks"))


def change_one(source: Path, form: Source) -> None:
    """Somebody removes a part of two pixels from the mask of ``a``, or paints a small one."""
    if form == "png":
        paint(source / "train/a.png")
    elif form == "cvat":

        def painted(content: bytes) -> bytes:
            picture = np.array(Image.open(io.BytesIO(content)))
            picture[11, 15] = (128, 0, 0)  # one pixel of the second class becomes the first
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, format="PNG")
            return buffer.getvalue()

        edit_zip("SegmentationClass/a.png", painted)(source)
    else:

        def drop(content: Any) -> None:
            number = next(i["id"] for i in content["images"] if i["file_name"] == "a.jpg")
            mine = [a for a in content["annotations"] if a["image_id"] == number]
            content["annotations"].remove(mine[-1])

        edit_json(drop)(source)


def test_an_edge_that_moved_by_a_pixel_is_no_correction_where_outlines_are_kept() -> None:
    mask = np.zeros((40, 50), np.uint8)
    mask[10:30, 10:30] = 1
    mask[15:20, 15:16] = 255
    shifted = np.roll(mask, 1, axis=1)
    assert is_unchanged(shifted, [mask], outlined=True)
    assert not is_unchanged(shifted, [mask], outlined=False)
    assert not is_unchanged(np.roll(mask, 2, axis=1), [mask], outlined=True)
    assert is_unchanged(np.where(mask == 255, 0, mask), [mask], outlined=True)  # as COCO writes it
    assert not is_unchanged(np.where(mask == 255, 0, mask), [mask], outlined=False)
    for place, label in (((35, 45), 1), ((20, 20), 0), ((12, 12), 2)):  # one pixel is a correction
        changed = mask.copy()
        changed[place] = label
        assert not is_unchanged(changed, [mask], outlined=True)
        assert not is_unchanged(changed, [mask], outlined=False)
    assert not is_unchanged(mask[:, :-1], [mask], outlined=True)
    assert not is_unchanged(mask, [], outlined=True)


def test_a_mask_of_an_earlier_import_stays_where_the_source_has_that_of_the_run(
    results: Results, tmp_path: Path
) -> None:
    """Two people may correct two exports of a run; and someone may take a correction back."""
    source, out = exported(results, "png", tmp_path, "train"), tmp_path / "hand"
    before = (source / "train/a.png").read_bytes()
    paint(source / "train/a.png")
    paint(source / "train/full.png")
    with own_masks(results.folder) as run_masks:
        imported(results, source, "png", out, run_masks=run_masks)
        corrected = (out / "a.png").read_bytes()
        (source / "train/a.png").write_bytes(before)
        save_label_png(out / "turned.png", results.train["train", "turned"])
        text = imported(results, source, "png", out, run_masks=run_masks)
    assert text.startswith(f"2 masks of 9 images in {out}: 0 new, 0 changed, 2 as before")
    assert "one of an earlier import stays: 1 images ('a'); --unchanged replaces it" in text
    assert "so had an earlier import: 1 images ('turned'); delete those that nobody" in text
    assert (out / "a.png").read_bytes() == corrected
    assert "0 new, 1 changed" not in text
    text = imported(results, source, "png", out)
    assert text.startswith(f"9 masks of 9 images in {out}: 6 new, 1 changed, 2 as before")
    np.testing.assert_array_equal(np.array(Image.open(out / "a.png")), results.train["train", "a"])


def test_a_run_whose_masks_are_gone_cannot_tell_what_was_corrected(
    results: Results, tmp_path: Path
) -> None:
    folder = tmp_path / "results/tiny"
    shutil.copytree(results.folder / "manifest", folder / "manifest")
    with (
        pytest.raises(ExportError, match=r"holds no masks .*; or pass --unchanged"),
        own_masks(folder),
    ):
        pass


@pytest.mark.slow
def test_the_command_says_what_to_do_next(results: Results, tmp_path: Path) -> None:
    source = exported(results, "png", tmp_path, "label")
    shutil.rmtree(source / "val")
    paint(source / "train/a.png")
    paint(source / "train/full.png")
    options = ("--format", "png", "--run", results.folder, "--out", "hand")
    done = wsss("import-masks", source, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "2 masks of 9 images in hand: 2 new, 0 changed, 0 as before",
        "left out, since the run has the same mask: 5 images ('dots.in.name', 'empty', "
        "'images/under', 'sub folder/bild ü', 'turned'); --unchanged takes them, too",
        "score with them: data.masks: hand",
        "learn from them: retrain.corrected: hand",
    ]
    done = wsss("import-masks", source, *options, "--unchanged", cwd=tmp_path)
    assert done.stdout.splitlines() == [
        "7 masks of 9 images in hand: 5 new, 0 changed, 2 as before",
        "score with them: data.masks: hand",
        "learn from them: retrain.corrected: hand",
    ]
    (tmp_path / "hand/letter.txt").touch()
    failed = wsss("import-masks", source, *options, cwd=tmp_path)
    assert failed.returncode == 1
    assert "hand: holds other things, e.g. 'letter.txt'; name another folder" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_source_without_any_correction_is_refused(results: Results, tmp_path: Path) -> None:
    results.export("label-studio", tmp_path / "ls", photos="none")
    tasks = tmp_path / "ls/tasks.json"
    tasks.write_text(json.dumps([t | {"annotations": []} for t in json.loads(tasks.read_text())]))
    with pytest.raises(TruthError, match=r"holds no corrected mask of an image of .*, but e\.g\."):
        imported(results, tasks, "label-studio", tmp_path / "hand")
