"""The gallery in a browser: with hostile names, and with thousands of photos."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders import provenance
from wsss.artifacts.errors import ArtifactError
from wsss.photos.classes import BACKGROUND, ClassTable, read_class_table, write_class_table
from wsss.photos.drawing import PhotoFiles, draw
from wsss.photos.journal import Journal
from wsss.photos.page import gallery_html
from wsss.photos.record import Entry, LeftOut, Tag
from wsss.photos.review import doubt, is_narrow, median_unsure, photo_flags, review_csv
from wsss.photos.tree import ResultTree, was_begun

HOSTILE = "</script><img src=x onerror=alert(1)>"
CLASSES = BACKGROUND.with_classes(["cat", HOSTILE, "cow"])


def entry(folder: Path, image: str, tags: tuple[Tag, ...], labels: np.ndarray) -> Entry:
    """A photo of two colours with its files."""
    photo = np.full((*labels.shape, 3), 120, np.uint8)
    photo[labels > 0] = (40, 160, 60)
    drawn = draw(image, photo, labels, folder, CLASSES.palette())
    return Entry(
        id=image,
        photo=str(folder / "nowhere" / f"{image}.jpg"),
        size=(labels.shape[1], labels.shape[0]),
        key="k",
        tags=tags,
        shares=drawn.shares,
        unsure=0.1,
        grid=drawn.grid,
        runs=drawn.runs,
        files=drawn.files,
    )


def squares(label: int, side: int) -> np.ndarray:
    """A square of a label in the upper left corner of 60 x 90 pixels."""
    labels = np.zeros((60, 90), np.uint8)
    labels[:side, :side] = label
    return labels


def entries(folder: Path) -> list[Entry]:
    return [
        entry(folder, "a/good #1 50%", (Tag(1, 0.9),), squares(1, 30)),
        entry(folder, "a/<b>&'\"", (Tag(2, 0.5),), squares(2, 40)),
        entry(folder, "none", (Tag(1, 0.005), Tag(3, 0.4)), squares(0, 0)),
        entry(folder, "all", (Tag(3, None),), squares(3, 90)),
    ]


def test_the_time_of_a_photo_does_not_grow_with_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No folder of pictures is listed for each of them."""
    scandir, listed = os.scandir, list[str]()

    def counted(folder: Path) -> object:
        listed.append(Path(folder).name)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", counted)
    for index in range(6):
        entry(tmp_path, f"photo {index}", (), squares(1, 30))
    assert sorted(listed) == ["masks", "overlays", "thumbnails"]


def test_flags_and_order_of_doubt(tmp_path: Path) -> None:
    good, odd, nothing, everything = entries(tmp_path)
    assert photo_flags(good) == photo_flags(odd) == []
    assert photo_flags(nothing) == [
        (1, "tag without a pixel"),
        (1, "probability under 0.01"),
        (3, "tag without a pixel"),
    ]
    assert photo_flags(everything) == [(3, "over 90 % of the photo")]
    assert doubt(nothing) > doubt(everything) > doubt(good)
    rows = review_csv([good, everything, nothing], CLASSES).splitlines()
    assert rows[1] == "none,cat,0.0050,0.0000,0.1000,tag without a pixel; probability under 0.01"
    assert rows[3] == "all,cow,,1.0000,0.1000,over 90 % of the photo"
    assert rows[4] == "a/good #1 50%,cat,0.9000,0.1667,0.1000,"


def test_very_long_photos_are_to_be_reviewed(tmp_path: Path) -> None:
    panorama = dataclasses.replace(entries(tmp_path)[0], narrow=True)
    assert photo_flags(panorama) == [(1, "photo longer than six times its width")]
    for size in ((5760, 437), (437, 5760)):
        assert is_narrow(*size, 512)
        assert not is_narrow(*size, 2048)
        assert not is_narrow(*size, None)
    assert not is_narrow(600, 100, 224)


def test_the_page_says_how_much_is_unsure(tmp_path: Path) -> None:
    photos = entries(tmp_path)
    many = [dataclasses.replace(photos[0], unsure=share) for share in (0.1, 0.9, 0.95)]
    assert median_unsure(many) == 0.9
    assert median_unsure([]) == 0
    assert '"unsure":0.9,' in gallery_html("t", many, CLASSES, tmp_path).replace(" ", "")


def test_ids_and_colours_last(tmp_path: Path) -> None:
    write_class_table(tmp_path, CLASSES)
    more = read_class_table(tmp_path).with_classes(["aardvark", "Cat"])
    assert more == ClassTable((*CLASSES.names, "aardvark"), (*CLASSES.colours, more.colours[-1]))
    assert more.labels(["CAT", "aardvark"]) == [1, 4]
    assert len(set(more.colours)) == 5
    channels = [bytes.fromhex(colour[1:]) for colour in more.colours[1:]]
    assert min(max(rgb) - min(rgb) for rgb in channels) > 40  # no greys
    (tmp_path / "classes.csv").write_text("id,name,color\n1,cat,#0077bb\n")
    with pytest.raises(ArtifactError, match=r"line 2 is '1,cat,#0077bb', expected 0,name,#rrggbb"):
        read_class_table(tmp_path)


def test_a_changed_folder_is_mended(tmp_path: Path) -> None:
    """Files of photos that are gone go; files of others stay; a lost file counts as changed."""
    record = tmp_path / "record.json"
    photos = entries(tmp_path)
    ResultTree(tmp_path, record).finish("t", photos, CLASSES, provenance())
    (tmp_path / "masks/mine.txt").write_text("the user's")
    tree = ResultTree(tmp_path, record)
    keys, paths = {photo.id: "k" for photo in photos}, {photo.id: photo.photo for photo in photos}
    assert tree.unchanged(keys, paths) == {photo.id: photo for photo in photos}
    (tmp_path / "overlays/all.jpg").unlink()
    others = tree.unchanged(keys | {"none": "other"}, paths)
    assert set(others) == {photo.id for photo in photos[:2]}
    tree.finish("t", photos[2:3], CLASSES, provenance())
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.*") if p.is_file()}
    files -= {
        "record.json",
        ".cache/record.jsonl",
        "review.csv",
        "index.html",
        "classes.csv",
    }
    assert files == {*PhotoFiles.of("none").paths(), "masks/mine.txt"}
    assert not (tmp_path / "masks/a").exists()


def pictures(folder: Path) -> set[str]:
    """Files in the folders of the photos' files."""
    parts = ("masks", "overlays", "thumbnails")
    paths = [path for part in parts for path in (folder / part).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)) for path in paths}


def test_files_of_photos_that_are_gone_go_without_notes_of_them(tmp_path: Path) -> None:
    """All four files of a name are a photo's; fewer are the user's, also between the others."""
    photos = entries(tmp_path)
    ResultTree(tmp_path, tmp_path / "record.json").finish("t", photos, CLASSES, provenance())
    shutil.rmtree(tmp_path / ".cache")
    mine = {"masks/mine.png", "masks/a/mine.png", "overlays/mine.jpg", "masks/..png", "masks/.png"}
    for path in mine:
        (tmp_path / path).write_text("the user's")
    tree = ResultTree(tmp_path, tmp_path / "record.json")
    assert tree.unchanged({"all": "k"}, {"all": "all.jpg"}) == {}
    tree.finish("t", photos[2:3], CLASSES, provenance())
    assert pictures(tmp_path) == {*PhotoFiles.of("none").paths(), *mine}


def test_a_file_of_the_user_in_the_place_of_a_photo_s_stays(tmp_path: Path) -> None:
    """The notes may be those of results in another folder: only what was written is removed."""
    record, photos = tmp_path / "record.json", entries(tmp_path / "a")
    ResultTree(tmp_path / "a", record).finish("t", photos, CLASSES, provenance())
    (tmp_path / "b/masks").mkdir(parents=True)
    (tmp_path / "b/masks/all.png").write_text("the user's")
    ResultTree(tmp_path / "b", record).finish("t", [], CLASSES, provenance())
    assert pictures(tmp_path / "b") == {"masks/all.png"}


def test_another_spelling_of_the_folder_is_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photos = entries(Path("out"))
    ResultTree(Path("out"), Path("out/r.json")).finish("t", photos, CLASSES, provenance())
    tree = ResultTree(tmp_path / "out", tmp_path / "out/r.json")
    keys, paths = {photo.id: "k" for photo in photos}, {photo.id: photo.photo for photo in photos}
    assert set(tree.unchanged(keys, paths)) == set(keys)
    tree.finish("t", photos[:1], CLASSES, provenance())
    assert pictures(tmp_path / "out") == set(PhotoFiles.of(photos[0].id).paths())


def test_a_photo_that_moved_is_not_drawn_again_but_linked(tmp_path: Path) -> None:
    tree = ResultTree(tmp_path, tmp_path / "record.json")
    tree.finish("t", entries(tmp_path)[2:3], CLASSES, provenance())
    new = str(tmp_path / "elsewhere/none.jpeg")
    tree = ResultTree(tmp_path, tmp_path / "record.json")
    (moved,) = tree.unchanged({"none": "k"}, {"none": new}).values()
    assert moved.photo == new
    tree.finish("t", [moved], CLASSES, provenance())
    assert '"photo":"elsewhere/none.jpeg"' in (tmp_path / "index.html").read_text("utf-8")


def test_photos_that_were_noted_last(tmp_path: Path) -> None:
    """Until a run ends, too; half a line and a damaged one cost their photos alone."""
    photos, record = entries(tmp_path), tmp_path / "record.json"
    tree = ResultTree(tmp_path, record)
    assert not was_begun(record)
    tree.begin()
    assert was_begun(record)
    for photo in photos[:3]:
        tree.add(photo)
    lines = Journal(record).path.read_bytes().replace(b'"unsure":0.1', b'"unsure":0.2', 1)
    Journal(record).path.write_bytes(lines[:-9])
    tree.add(photos[3])
    assert Journal(record).entries() == {photo.id: photo for photo in (photos[1], photos[3])}
    changed = Entry(**{**vars(photos[1]), "key": "other"})
    tree.add(changed)
    assert Journal(record).entries()[changed.id] == changed


def opened(browser: Any, path: Path) -> tuple[Any, list[str]]:
    """The page, and what it complains about."""
    page = browser.new_page(viewport={"width": 1300, "height": 800})
    errors: list[str] = []
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: errors.append(dialog.message))
    page.on(
        "request",
        lambda request: (
            errors.append(request.url) if not request.url.startswith(("file:", "data:")) else None
        ),
    )
    page.goto(path.as_uri())
    return page, errors


@pytest.mark.slow
def test_in_a_browser(browser: Any, tmp_path: Path) -> None:
    """Order, filter, slider, hover and keyboard, without an error and with names as text."""
    photos = entries(tmp_path)
    left_out = [
        LeftOut(str(tmp_path / "<i>.jpg"), "cannot be decoded: <b>"),
        LeftOut("n.jpg", "no tag"),
    ]
    tree = ResultTree(tmp_path, tmp_path / "record.json")
    tree.finish(HOSTILE, photos, CLASSES, provenance(), left_out)
    page, errors = opened(browser, tmp_path / "index.html")
    names, cards = page.locator(".card .name"), page.locator(".card")
    assert page.title() == HOSTILE
    assert names.all_text_contents()[:2] == ["none", "all"]
    page.select_option("#sort", "name")
    assert names.all_text_contents() == sorted(photo.id for photo in photos)
    page.select_option("#tag", "flags")
    assert set(names.all_text_contents()) == {"all", "none"}
    page.select_option("#tag", label=f"{HOSTILE} (1)")
    assert names.all_text_contents() == ["a/<b>&'\""]
    page.select_option("#tag", "")
    assert page.locator("#count").inner_text() == "4 of 4 photos"
    assert not page.locator("#left-out li").first.is_visible()
    page.locator("#left-out summary", has_text="2 not used").click()
    shown = page.locator("#left-out li").all_inner_texts()
    assert shown == ["<i>.jpg: cannot be decoded: <b>", "n.jpg: no tag"]
    page.wait_for_function("[...document.images].every(i => i.complete && i.naturalWidth)")

    mask = page.locator(".card .mask").first
    opacity = "node => Number(getComputedStyle(node).opacity)"
    assert mask.evaluate(opacity) == pytest.approx(0.6)
    page.locator("#opacity").fill("20")
    assert mask.evaluate(opacity) == pytest.approx(0.2)
    page.keyboard.press("m")
    assert mask.evaluate(opacity) == 0
    page.keyboard.press("+")
    assert mask.evaluate(opacity) == pytest.approx(0.3)

    good = cards.filter(has_text="good #1")
    box = good.locator(".photo").nth(1).bounding_box()
    page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 0.1 * box["height"])
    assert page.locator("#hover").inner_text() == "cat"
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 0.9 * box["height"])
    assert page.locator("#hover").inner_text() == "background"

    cards.first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.locator("#viewer-title").inner_text() == names.all_text_contents()[1]
    page.keyboard.press("ArrowRight")
    assert page.locator("#viewer-title").inner_text() == names.all_text_contents()[2]
    assert "cat: 0.0 % of the pixels" not in page.locator("#facts").inner_text()
    page.keyboard.press("Escape")
    assert not page.locator("#viewer").is_visible()
    assert errors == []
    page.close()


@pytest.mark.slow
def test_a_very_long_photo_does_not_fill_the_page(browser: Any, tmp_path: Path) -> None:
    photos = [entry(tmp_path, "tall", (Tag(1, 0.9),), np.ones((600, 8), np.uint8))]
    tree = ResultTree(tmp_path, tmp_path / "record.json")
    tree.finish("photos", photos, CLASSES, provenance())
    page, errors = opened(browser, tmp_path / "index.html")
    box = page.locator(".card .photo").first.bounding_box()
    assert 370 < box["height"] < 400
    assert box["width"] / box["height"] == pytest.approx(8 / 600, rel=0.2)
    assert not errors


@pytest.mark.slow
def test_five_thousand_photos(browser: Any, tmp_path: Path) -> None:
    """The page stays small, and shows its cards as one scrolls."""
    one = entries(tmp_path)[0]
    rng = np.random.default_rng(0)
    many = []
    for index in range(5000):
        runs = np.stack([rng.integers(0, 4, 60), np.full(60, 27)], 1).ravel().tolist()
        values = {**vars(one), "id": f"f/{index:05d}", "runs": runs, "unsure": index / 5000}
        many.append(Entry(**values))
    for image in ("f/04999", "f/00000"):
        for path, source in zip(
            PhotoFiles.of(image).paths(), PhotoFiles.of(one.id).paths(), strict=True
        ):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tmp_path / source, tmp_path / path)
    text = gallery_html("many", many, CLASSES, tmp_path)
    assert len(text) < 8e6
    (tmp_path / "index.html").write_text(text, "utf-8")
    page, errors = opened(browser, tmp_path / "index.html")
    cards = page.locator(".card")
    assert cards.first.locator(".name").text_content() == "f/04999"
    assert cards.count() == 120
    assert page.evaluate("performance.now()") < 10_000
    for _ in range(50):
        if cards.count() > 240:
            break
        page.keyboard.press("End")
        page.wait_for_timeout(100)
    assert cards.count() > 240
    page.select_option("#sort", "name")
    assert cards.first.locator(".name").text_content() == "f/00000"
    assert all("ERR_FILE_NOT_FOUND" in error for error in errors)
    page.close()


def test_names_cannot_end_the_script(tmp_path: Path) -> None:
    text = gallery_html("</script>", [], CLASSES, tmp_path)
    data = text.split('id="data">')[1].partition("</script>")[0]
    assert json.loads(data)["classes"][2] == HOSTILE
