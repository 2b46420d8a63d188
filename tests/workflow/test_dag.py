"""The whole chain, and what reruns when something changes."""

import csv
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.masks.colour_regions import write_regions
from wsss.config.base import overlay

from .conftest import CONFIG, RUN, Project, jobs, tables_of_papers

pytestmark = pytest.mark.workflow

SCORE = {"score_blob", "score_cam", "score_masks", "score_segmenter", "table", "class_chart"}
RETRAIN = {"retrain", "predict", "loss_curve"}
MASKS = {"masks"}
REFINE = {"refine_train", "refine_apply", "refine_predict"}
TO_MASKS = {
    "cams": {"splits": ["train"], "affinity": {"enabled": True}},
    "masks": {"crf": {"enabled": False}},
    "retrain": {"enabled": False},
}
"""Changes with which the CAMs stay as they are, and the chain ends soon."""


@contextmanager
def _edited(path: Path, text: str) -> Iterator[None]:
    """Append text to a source file for a while; its time stamps are restored afterwards."""
    content, stat = path.read_bytes(), path.stat()
    path.write_bytes(content + text.encode())
    try:
        yield
    finally:
        path.write_bytes(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@contextmanager
def _configured(project: Project, **changes: object) -> Iterator[None]:
    project.configure(**changes)
    try:
        yield
    finally:
        project.configure()


def test_run_ends_in_a_table_pictures_and_masks(finished: Project) -> None:
    with (finished.results / "tables/table.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) >= 10
    assert {row["split"] for row in rows} == {"train", "val"}
    for name in ("table", "classes", "pairs"):
        for end in ("md", "html", "csv"):
            assert (finished.results / f"tables/{name}.{end}").stat().st_size > 100, name
    for name in ("train", "val", "class_iou", "segmenter_loss", "refiner_loss"):
        assert (finished.results / f"pictures/{name}.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(finished.results.glob("masks/train/png/*/label/*.png"))) == 14
    assert len(list(finished.results.glob("masks/train/png/*/train/*.png"))) == 14


def test_second_run_has_nothing_to_do(finished: Project) -> None:
    assert not finished.would_run()


def test_comments_and_the_command_line_rerun_nothing(finished: Project) -> None:
    """Beside an edit of code, which reruns what it says and nothing else.

    `tests/artifacts/test_code_digest.py` edits every module.
    """
    root = finished.root / "wsss"
    with (
        _edited(root / "cams/grad_cam.py", "\n# edited\n"),
        _edited(root / "cli/app.py", "\n_EDITED = 1\n"),
        _edited(root / "refine/predict.py", "\n_EDITED = 1\n"),
        _edited(root / "retrain/predict.py", "\n_EDITED = 1\n"),
    ):
        rules = set(finished.would_run())
    with _edited(root / "score/page/assets/page.css", "\n/* edited */\n"):
        assert set(finished.would_run()) == {"page"}
    assert rules == {
        *("refine_predict", "refine_predict_nothing", "score_refiner_prediction"),
        *("predict", "predict_nothing", "score_segmenter", "table", "class_chart"),
        *("contact_sheet", "page"),
    }


def test_values_that_no_result_depends_on_rerun_the_picture_alone(finished: Project) -> None:
    """A sample; `tests/pipeline/test_reruns.py` has more."""
    changes = {
        "pictures": {"contact_images": 3},
        "compute": {"workers": 2, "batch": 3},
        "refine": overlay(CONFIG["refine"], {"train": {"checkpoint_every": 3}}),
        "retrain": CONFIG["retrain"] | {"checkpoint_every": 3},
    }
    with _configured(finished, **changes):
        rules = set(finished.would_run())
    assert "contact_sheet" in rules
    assert not ({"cams", "ingest"} | REFINE | MASKS | RETRAIN | SCORE) & rules


def test_the_reason_of_a_rerun_names_the_section(finished: Project) -> None:
    """Not the values of all sections, which would fill the screen."""
    with _configured(finished, masks={"min_confidence": 0.5}):
        shown = finished.snakemake("--dry-run").stdout
    rules = set(jobs(shown))
    assert rules >= MASKS | RETRAIN
    assert not {"cams", "ingest", "refine_train", "refine_apply"} & rules
    reason = next(line for line in shown.splitlines() if "masks" in line and "before:" in line)
    before, now = re.findall(r"masks ([0-9a-f]{16})'", reason)
    assert before != now
    assert '{"' not in shown
    last = shown.split("Changed since these jobs ran last:")[1]
    assert re.search(r"\n  masks\.min_confidence: \S+ -> 0\.5 \(masks, ", last)
    assert "code of" not in last


def test_a_table_with_errors_stops_its_own_target_alone(finished: Project) -> None:
    table = finished.root / "workflow/tables/wrong.yaml"
    table.write_text("title: Wrong\ncolour: red\n")
    try:
        assert not finished.would_run("all")
        asked = finished.snakemake("--dry-run", "table_wrong", check=False)
    finally:
        table.unlink()
    assert asked.returncode
    shown = asked.stdout + asked.stderr
    assert re.search(r"error: .*wrong\.yaml: not a valid table", shown)
    assert "Traceback" not in shown


def test_editing_a_truth_png_scores_again(finished: Project) -> None:
    target = "results/tiny-photos/scores/blob.train.json"
    drawn = "results/tiny-data"
    classes = (finished.root / drawn / "classes.txt").read_text().split()
    data = {
        "kind": "folder",
        "root": f"{drawn}/JPEGImages",
        "tags": f"{drawn}/tags.csv",
        "val_list": "",
        "classes": classes,
        "masks": f"{drawn}/SegmentationClass",
    }
    changes = {"name": "tiny-photos", "data": data, "cams": {"splits": ["train"]}}
    with _configured(finished, **changes):
        finished.snakemake("--", target)
        png = next((finished.root / drawn / "SegmentationClass").glob("val_*.png"))
        before = png.stat().st_mtime_ns
        os.utime(png, ns=(before, before + 1_000_000_000))
        try:
            again = finished.snakemake("--dry-run", "--", target).stdout
        finally:
            os.utime(png, ns=(before, before))
    assert "score_blob" in jobs(again)
    assert "ingest" not in again.split("Job stats:")[1].split("total")[0]


def test_another_seed_of_the_drawings_draws_again(finished: Project) -> None:
    data = CONFIG["data"] | {"demo_seed": 1}  # type: ignore[operator]
    with _configured(finished, data=data):
        assert finished.would_run()["demo_data"] == 1


def test_seeds_come_between_cams_and_weakclip(finished: Project) -> None:
    weakclip = {"method": "weakclip", "weakclip": {"width": 16, "channels": 16}}
    target = f"results/{RUN}/seeded/refine/checkpoint.safetensors"
    with _configured(finished, runs={"seeded": {"refine": weakclip}}):
        planned = finished.runs(target)
        remaining = finished.would_run()
    seeded = {"refine": weakclip, "seeds": {"values": [0.2, 0.7]}}
    with _configured(finished, runs={"seeded": seeded}):
        changed = finished.would_run()
    assert planned["seeds"] == changed["seeds"] == 2  # one per part of the train split
    assert "seeds" not in remaining
    (folder,) = finished.results.glob("**/seeds/train/png")
    assert len(list(folder.glob("*/train/*.png"))) == 14
    assert changed["refine_train"] == 1
    assert not {"ingest", "cams"} & set(changed)


def test_an_imported_refiner_is_not_trained(finished: Project) -> None:
    name, file = "tiny-imported", finished.root / "elsewhere.safetensors"
    shutil.copy(finished.results / "refine/checkpoint.safetensors", file)
    refine = CONFIG["refine"] | {"checkpoint": file.name}  # type: ignore[operator]
    with _configured(finished, name=name, refine=refine):
        planned = finished.would_run()
        finished.snakemake("--", f"results/{name}/refine/checkpoint.safetensors")
        done = finished.would_run()
        content = file.read_bytes()
        file.write_bytes(content + b" ")
        changed = finished.would_run()
        file.write_bytes(content)
    assert planned["refine_import"] == 1
    assert {"refine_apply", "refine_predict"} <= set(planned)
    assert not {"refine_train", "efficiency", "seeds"} & set(planned)
    assert planned["loss_curve"] == 1  # the segmenter's
    assert "refine_import" not in done
    assert changed["refine_import"] == 1
    imported = finished.root / "results" / name / "refine/checkpoint.safetensors"
    assert imported.read_bytes() == file.read_bytes()


def test_a_sweep_shares_the_cams_and_ends_in_one_table(finished: Project) -> None:
    with _configured(finished, sweep={"refine.weclip.rfm_start": [1, 3]}, **TO_MASKS):
        trained = finished.would_run()
    values = {"masks.background.value": [0.3, 0.6]}
    with _configured(finished, sweep=values, refine={"method": "none"}, **TO_MASKS):
        run = finished.runs(f"results/{RUN}/tables/sweep.md")
        remaining = finished.would_run()
    assert trained["refine_train"] == 2
    assert not {"cams", "ingest"} & {*trained, *run, *remaining}
    assert not REFINE & set(run)
    assert run["masks"] == 4  # two values, two parts
    assert not (MASKS | REFINE | {"loss_curve"}) & set(remaining)
    text = (finished.results / "tables/sweep.md").read_text()
    for label in ("value-0.3", "value-0.6", "shared"):
        assert f"| {label} |" in text
    assert "pseudo mask, train" in text
    assert (finished.results / "value-0.6/masks/train/1-of-2.h5").is_file()
    assert not (finished.results / "value-0.6/scores_grid").exists()  # the CAMs become the masks


def test_runs_of_several_encoders_end_in_a_table_by_backbone(finished: Project) -> None:
    """As the preset voc12-encoders, with the demo's encoder and the same with random weights."""
    encoders = {"demo": {}, "random": {"clip": {"pretrained": "random"}}}
    with _configured(finished, runs=encoders, refine={"method": "none"}, **TO_MASKS):
        run = finished.runs(f"results/{RUN}/tables/sweep.md")
    assert run["cams"] == 2  # the demo's are there; two parts
    lines = (finished.results / "tables/sweep.md").read_text().splitlines()
    head = next(line for line in lines if line.startswith("| run |"))
    assert head.startswith("| run | Backbone | ")
    assert "pseudo mask, train" in head
    for label, weights in {"demo": "demo-vit-p8", "random": "random"}.items():
        assert any(line.startswith(f"| {label} | demo-vit-p8, {weights} | ") for line in lines)
    table = (finished.results / "tables/sweep.csv").read_text()
    assert "backbone" in table.splitlines()[0].split(",")


def test_proposals_of_masks_are_a_supervision_of_their_own(finished: Project) -> None:
    """CRF, PAR and proposals side by side; an edited file is noticed, a missing one refused."""
    folder = finished.root / "proposals"
    count = write_regions(finished.results / "manifest", folder, finished.root)
    assert count == 18
    sam = {"refine": "sam", "proposals": {"path": "proposals"}}
    runs = {"crf": {"refine": "crf"}, "par": {"refine": "par"}, "sam": sam}
    changes = TO_MASKS | {
        "runs": {name: {"masks": masks} for name, masks in runs.items()},
        "refine": {"method": "none"},
        "masks": CONFIG["masks"],
    }
    table = f"results/{RUN}/tables/sweep.md"
    with _configured(finished, **changes):
        assert finished.runs(table)["masks"] == 6  # three runs, two parts
        lines = (finished.results / "tables/sweep.md").read_text().splitlines()
        masks = {name: _mask_bytes(finished.results / name) for name in runs}
        file = next(iter(sorted(folder.glob("*.json"))))
        _edit_later(file, "[]")
        edited = finished.would_run(table)
        file.unlink()
        failed = finished.snakemake("--", table, check=False)
    head = next(line for line in lines if line.startswith("| run |"))
    assert head.startswith("| run | Supervision | ")
    for name in runs:
        sign = "I+SAM" if name == "sam" else "I"
        assert any(line.startswith(f"| {name} | {sign} | ") for line in lines)
    assert len(set(masks.values())) == 3
    assert edited["masks"] == 2  # of the run with proposals alone
    shown = failed.stdout + failed.stderr
    assert failed.returncode
    assert "proposals: 1 of " in shown
    assert f"images have no mask proposals, expected <id>.json each: {file.stem}" in shown
    assert "Traceback" not in shown


def _mask_bytes(run: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(run.glob("masks/*/png/*/label/*.png")))


def _edit_later(file: Path, text: str) -> None:
    """Edit a file so that its stamp differs, however coarse the clock of the file system is."""
    file.write_text(text)
    os.utime(file, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns + 10**9))


def test_runs_share_the_cams_that_are_the_same(finished: Project) -> None:
    def patch_text(form: str) -> dict[str, object]:
        return {"source": "patch_text", "patch_text": {"tse": {"form": form}}}

    runs = {
        "plain": {"cams": patch_text("off"), "refine": {"method": "none"}},
        "trained": {"cams": patch_text("off"), "refine": {"method": "excel"}},
        "enriched": {"cams": patch_text("topk"), "refine": {"method": "excel"}},
        "as-before": {"seed": 5},
    }
    with _configured(finished, runs=runs, retrain={"enabled": False}):
        planned = finished.would_run()
    assert planned["refine_train"] == 3  # all runs but the plain one
    assert planned["refine_apply"] == 3 * 4  # two parts of both splits
    assert planned["cams"] == 2 * 4  # those of the last run are there
    assert "ingest" not in planned


def test_another_segmenter_is_two_trainings_and_nothing_else(finished: Project) -> None:
    """Two chains of CAMs; those of the first are there."""
    cams = {"spread": {}, "plain": {"cams": {"affinity": {"enabled": False}}}}
    segmenters = {"second": {"retrain": {"lr": 1e-5}}, "first": {}}
    with _configured(finished, matrix={"cams": cams, "retrain": segmenters}):
        planned = finished.would_run()
    assert planned["retrain"] == 4
    assert planned["cams"] == 4
    assert planned["refine_train"] == 2
    assert planned["masks"] == 2 * 4
    assert "ingest" not in planned


def test_a_table_of_a_paper_is_a_target(finished: Project) -> None:
    tables = ("table_weakclip_prompts", "table_demo_matrix")
    with tables_of_papers(finished):
        planned = jobs(finished.snakemake("--dry-run", *tables).stdout)
    assert planned["refine_train"] == 4 + 6  # two chains of the matrix have no refiner
    assert planned["retrain"] == 8
    assert planned["table_weakclip_prompts"] == planned["table_demo_matrix"] == 1
    assert planned["demo_data_1"] == 1
    assert "demo_data" not in planned  # that of the configuration, elsewhere


@pytest.fixture(scope="module")
def report(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    finished.snakemake("--report", str(path))
    return path


def test_report_is_one_file_with_table_and_pictures(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    for needle in ("contact sheet", "segmenter loss", "refiner loss", "IoU per class", "table"):
        assert needle in text
    for name in ("train.png", "val.png", "class_iou.png", "segmenter_loss.png", "table.html"):
        assert re.search(rf"data:[a-z/]+;charset=utf8;filename={re.escape(name)};base64,", text)


def test_all_of_a_picture_in_the_report_can_be_reached(report: Path, browser: Any) -> None:
    """Also in a window that is lower than the picture."""
    page = browser.new_page(viewport={"width": 1920, "height": 300})
    page.goto(f"file://{report}")
    page.locator("a", has_text="Pictures").first.click()
    rows = page.locator("tr", has_text="contact sheet")
    assert rows.count() == 2
    rows.first.locator("a").first.click()
    picture = page.locator("img[src^='data:image/png']").last
    picture.wait_for()
    first, last = (picture.evaluate(_CORNERS, corner) for corner in ("start", "end"))
    page.close()
    assert first["height"] > 300
    assert first["left"] >= first["frame_left"]
    assert first["top"] >= first["frame_top"]
    assert last["bottom"] <= 300
    assert last["right"] <= 1920


_CORNERS = """(picture, corner) => {
  const frame = picture.parentElement.parentElement;
  const far = corner == "end" ? 1e6 : -1e6;
  frame.scrollTo(far, far);
  const box = picture.getBoundingClientRect(), outer = frame.getBoundingClientRect();
  return {top: box.top, left: box.left, bottom: box.bottom, right: box.right, height: box.height,
          frame_top: outer.top, frame_left: outer.left};
}"""
