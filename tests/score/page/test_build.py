"""The result page of a tiny run, in a browser."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.score.conftest import Run
from wsss.artifacts.errors import ArtifactError
from wsss.score.page.build import make_page, page_html, side_by_side
from wsss.score.page.files import RunFiles, edits, page_provenance, read_shown
from wsss.score.record import read_records, write_records


def files_of(run: Run, name: str = "tiny") -> RunFiles:
    """Shards and records of a run whose masks are almost true."""
    maps, predicted = {}, {}
    for index, sample in enumerate(run.samples):
        truth = run.truth[sample.id]
        label = np.where(truth == 255, 0, truth).astype(np.uint8)
        label[: 3 + index] = 0
        maps[sample.id] = {
            "label": label,
            "train": np.where(label == 0, 255, label).astype(np.uint8),
        }
        predicted[sample.id] = {"single": np.roll(label, 3, axis=1)}
    refined = {image: {"score": cam} for image, cam in run.cams.items()}
    shards = {
        "cams": run.cam_shards(),
        "scores_grid": [run.write("scores", "scores", refined)],
        "masks": [run.write("masks", "masks", maps)],
        "predictions": [run.write("pred", "predictions", predicted)],
    }
    scores = run.folder / "scores"
    scores.mkdir(exist_ok=True)
    records = [scores / f"{file}.train.json" for file in shards]
    for product, kind, record in zip(
        ("cam", "refiner_scores", "masks", "segmenter"), shards, records, strict=True
    ):
        run.score(product, shards[kind], record)
    return RunFiles(name, run.manifest_dir, shards, records)


def page_of(run: Run, out: Path, **options: Any) -> Path:
    draw(files_of(run), run, out, **options)
    return out / "index.html"


def draw(files: RunFiles, run: Run, out: Path, **options: Any) -> None:
    config = run.config
    sections = {"supervision": "tags", "data": config.data, "pictures": config.pictures}
    make_page(files, out, workers=1, **sections, **options)


def test_files_of_a_page(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run(pictures={"contact_images": 2})
    small = tmp_path / "small.html"
    page = page_of(run, tmp_path / "out", embedded=small)
    names = sorted(path.name for path in (tmp_path / "out/page").glob("train-0-*.webp"))
    assert names == [
        f"train-0-{key}.webp"
        for key in (
            "cam", "cam_affinity", "image", "mask", "prediction", "refined", "train_mask", "truth",
        )
    ]  # fmt: skip
    assert "data:image/webp" not in page.read_text()
    assert small.read_text().count("data:image/webp;base64,") == 2 * len(names)
    other = read_shown(tmp_path / "out")
    assert other.run == files_of(run)
    side_by_side(other, other, tmp_path / "both", workers=1)
    assert (tmp_path / "both/page/train-0-other_mask.webp").is_file()
    with pytest.raises(ArtifactError, match="no such file; pass the results of a run"):
        read_shown(tmp_path)
    empty = RunFiles("none", run.manifest_dir, {}, [])
    with pytest.raises(ArtifactError, match="has no CAMs, masks or predictions to show"):
        draw(empty, run, tmp_path / "e")


def test_edits_of_a_page_are_noticed(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run, small, out = make_run(), tmp_path / "small.html", tmp_path / "out"
    page = page_of(run, out, embedded=small)
    assert page_provenance(out).stage == "page"
    assert not [*edits(out), *edits(out, small)]
    small.write_text(small.read_text() + " ")
    assert list(edits(out, small)) == ["was edited"]
    picture = out / "page/train-1-mask.webp"
    picture.write_bytes(picture.read_bytes()[:-1])
    assert list(edits(out, quick=True)) == []
    assert list(edits(out)) == ["its picture page/train-1-mask.webp was edited or is missing"]
    page.write_text("<p>")
    assert list(edits(out, quick=True)) == ["was edited"]
    record = out / "page/files.json"
    record.write_text(record.read_text().replace("tiny", "huge"))
    with pytest.raises(ArtifactError, match="make the page again"):
        page_provenance(out)


def test_names_cannot_end_the_script() -> None:
    page = page_html({"run": "</script><b>", "splits": {}})
    start = page.index('<script type="application/json" id="data">')
    text = page[start:].partition(">")[2].partition("</script>")[0]
    assert json.loads(text)["run"] == "</script><b>"


@pytest.mark.slow
def test_runs_with_other_class_means_are_not_compared(
    make_run: Callable[..., Run], tmp_path: Path
) -> None:
    run = make_run()
    page_of(run, tmp_path / "out")
    first = read_shown(tmp_path / "out")
    path = run.folder / "scores/other.json"
    records = read_records([first.run.records[2]])
    write_records(path, [record.model_copy(update={"class_mean": "truth"}) for record in records])
    second = replace(first, run=replace(first.run, records=[path]))
    with pytest.raises(ValueError, match=r"score.class_mean: union and truth.; score both with"):
        side_by_side(first, second, tmp_path / "both", workers=1)


@pytest.mark.slow
def test_images_without_a_truth_are_shown_without_it(
    browser: Any, make_run: Callable[..., Run], tmp_path: Path
) -> None:
    """In a folder of photos, a part of them may have masks. Names hold what they like."""
    root = tmp_path / "data"
    data = {"kind": "folder", "root": str(root / "JPEGImages"), "val_list": ""}
    masks = root / "SegmentationClass"
    run = make_run(data=data | {"masks": str(masks)}, cams={"splits": ["train"]})
    (masks / "image1.png").unlink()
    files = replace(files_of(run), name="a <!--<script> b")
    draw(files, run, tmp_path / "out")
    page = browser.new_page()
    page.goto(f"file://{tmp_path / 'out/index.html'}")
    assert page.locator("#title").inner_text() == "a <!--<script> b"
    broken = "[...document.images].filter(i => i.complete && !i.naturalWidth).length"
    page.locator(".card", has_text="image1").click()
    assert page.locator("#viewer-layers .lacks").all_inner_texts() == ["no truth"]
    assert page.evaluate(broken) == 0
    page.keyboard.press("Escape")
    page.locator(".card", has_text="image2").click()
    assert page.locator("#viewer-layers .lacks").count() == 0
    page.close()


@pytest.mark.slow
def test_in_a_browser(browser: Any, make_run: Callable[..., Run], tmp_path: Path) -> None:
    """No error; layers, order, filters, a click on a confusion cell, the keyboard."""
    run = make_run()
    page_of(run, tmp_path / "out", embedded=tmp_path / "small.html")
    both = read_shown(tmp_path / "out")
    side_by_side(both, both, tmp_path / "both", workers=1)
    page = browser.new_page()
    errors: list[str] = []
    page.on(
        "console", lambda message: errors.append(message.text) if message.type == "error" else None
    )
    page.on("pageerror", lambda error: errors.append(str(error)))
    draw(replace(files_of(run), records=[]), run, tmp_path / "unscored")
    page.goto(f"file://{tmp_path / 'unscored/index.html'}")
    assert page.locator("#sort option").all_inner_texts() == ["as in the list"]
    assert "mean IoU" not in page.locator("body").inner_text()
    for address in ("both/index.html", "small.html", "out/index.html"):
        page.goto(f"file://{tmp_path / address}")
        assert (
            page.evaluate("[...document.images].filter(i => i.complete && !i.naturalWidth).length")
            == 0
        )
        assert page.locator("#against").is_visible() == address.startswith("both")
    stages = page.locator("#chain .stage", has=page.locator("b")).all_inner_texts()
    assert [stage.splitlines()[0] for stage in stages] == [
        "CAM", "refined CAM", "pseudo mask", "segmenter's prediction",
    ]  # fmt: skip
    cards, name = page.locator(".card"), ".card .name"
    assert cards.count() == len(run.samples)
    ious = [
        float(text.split()[-1])
        for text in page.locator(".card .line span:nth-child(2)").all_inner_texts()
    ]
    assert ious == sorted(ious)
    page.select_option("#sort", "best")
    ious = [
        float(text.split()[-1])
        for text in page.locator(".card .line span:nth-child(2)").all_inner_texts()
    ]
    assert ious == sorted(ious, reverse=True)
    layer = page.locator("#layer-name")
    before = layer.inner_text()
    page.locator("h1").click()
    page.keyboard.press("ArrowLeft")
    assert layer.inner_text() != before
    page.locator("#layer").fill("0")
    assert layer.inner_text() == "image"
    page.select_option("#class", label="cat")
    tagged = [s.id for s in run.samples if 0 in s.tags]
    assert sorted(page.locator(name).all_inner_texts()) == sorted(tagged)
    page.select_option("#class", label="all")
    page.locator("rect.hit[data-truth='1'][data-predicted='0']").first.click()
    assert "cat taken for background" in page.locator("#cell").inner_text()
    missed = [s.id for s in run.samples if (run.truth[s.id] == 1).any()]
    assert set(page.locator(name).all_inner_texts()) <= set(missed)
    page.get_by_role("button", name="show all").click()
    assert cards.count() == len(run.samples)
    cards.first.focus()
    page.keyboard.press("Enter")
    assert page.locator("dialog").is_visible()
    first = page.locator("#viewer-title").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#viewer-title").inner_text() != first
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    assert errors == []
    page.close()
