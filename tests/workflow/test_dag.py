"""The whole chain, and what reruns when something changes."""

from __future__ import annotations

import csv
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from wsss.artifacts.shard import Shard

from .conftest import CONFIG, Project, jobs

pytestmark = pytest.mark.workflow

SCORE = {"score_blob", "score_cam", "score_masks", "score_segmenter", "table", "class_chart"}
RETRAIN = {"retrain", "predict", "loss_curve"}
MASKS = {"masks"}
REFINE = {"refine_train", "refine_apply", "refine_predict"}


@contextmanager
def _edited(path: Path) -> Iterator[None]:
    """Append a comment to a source file for a while, with its old time stamps restored after."""
    content, stat = path.read_bytes(), path.stat()
    path.write_bytes(content + b"\n# edited\n")
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
    for name in ("table.md", "table.html", "table.csv"):
        assert (finished.results / "tables" / name).stat().st_size > 200
    for name in ("train", "val", "class_iou", "segmenter_loss", "refiner_loss"):
        assert (finished.results / f"pictures/{name}.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(finished.results.glob("masks/train/png/*/label/*.png"))) == 14
    assert len(list(finished.results.glob("masks/train/png/*/train/*.png"))) == 14


def test_second_run_has_nothing_to_do(finished: Project) -> None:
    done = finished.snakemake()
    assert "Nothing to be done" in done.stdout + done.stderr
    assert not finished.would_run()


@pytest.mark.parametrize(
    ("module", "runs", "spares"),
    [
        ("demo/scenes.py", {"demo_data"}, set()),
        ("data/ingest.py", {"ingest", "cams"} | REFINE | MASKS | RETRAIN | SCORE, {"demo_data"}),
        ("cams/grad_cam.py", {"cams"} | REFINE | MASKS | RETRAIN, {"ingest", "score_blob"}),
        ("refine/weclip.py", REFINE | MASKS | RETRAIN, {"cams", "score_blob", "ingest"}),
        ("refine/none.py", set(), {"cams"} | REFINE | MASKS | RETRAIN | SCORE),
        ("masks/stage.py", MASKS | RETRAIN, {"cams", "score_cam"} | REFINE),
        ("retrain/train.py", RETRAIN, {"cams", "score_cam", "score_masks"} | REFINE | MASKS),
        (
            "retrain/predict.py",
            {"predict", "score_segmenter"},
            {"retrain", "masks", "score_masks"},
        ),
        ("score/table.py", {"table"}, RETRAIN | MASKS | {"cams", "score_masks"}),
        ("cli/app.py", set(), {"ingest", "cams", "table"} | REFINE | MASKS | RETRAIN | SCORE),
    ],
)
def test_editing_a_module_reruns_what_uses_it(
    finished: Project, module: str, runs: set[str], spares: set[str]
) -> None:
    with _edited(finished.root / "wsss" / module):
        found = set(finished.would_run())
    assert runs <= found, f"not rerun: {runs - found}"
    assert not spares & found, f"rerun for nothing: {spares & found}"


@pytest.mark.parametrize(
    ("change", "runs", "spares"),
    [
        ({"retrain": CONFIG["retrain"] | {"lr": 1e-5}}, RETRAIN, {"cams", "masks", "score_masks"}),  # type: ignore[operator]
        (
            {"masks": {"min_confidence": 0.5}},
            MASKS | RETRAIN,
            {"cams", "ingest", "refine_train", "refine_apply"},
        ),
        (
            {"infer": {"scales": [1.0]}},
            {"refine_apply", "refine_predict", "masks"},
            {"cams", "refine_train"},
        ),
        ({"cams": {"affinity": {"power": 1}}}, {"cams"} | REFINE | MASKS | RETRAIN, {"ingest"}),
        ({"clip": {"template": ["a photo of a {}."]}}, {"cams"} | REFINE | MASKS, {"ingest"}),
        (
            {"pictures": {"contact_images": 3}},
            {"contact_sheet"},
            {"cams", "masks", "predict"} | SCORE,
        ),
        (
            {"compute": {"workers": 2, "batch": 3}},
            set(),
            {"cams", "masks", "retrain", "ingest"} | SCORE,
        ),
        ({"seed": 5}, {"refine_train", "retrain"}, {"cams", "ingest"}),
    ],
)
def test_changing_a_value_reruns_what_reads_it(
    finished: Project, change: dict[str, object], runs: set[str], spares: set[str]
) -> None:
    with _configured(finished, **change):
        found = set(finished.would_run())
    assert runs <= found, f"not rerun: {runs - found}"
    assert not spares & found, f"rerun for nothing: {spares & found}"


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
        assert "Nothing to be done" in finished.snakemake("--dry-run", "--", target).stdout
        png = next((finished.root / drawn / "SegmentationClass").glob("val_*.png"))
        before = png.stat().st_mtime_ns
        os.utime(png, ns=(before, before + 1_000_000_000))
        try:
            again = finished.snakemake("--dry-run", "--", target).stdout
        finally:
            os.utime(png, ns=(before, before))
    assert "score_blob" in jobs(again)
    assert "ingest" not in again.split("Job stats:")[1].split("total")[0]


def test_without_a_refiner_the_cams_become_the_masks(finished: Project) -> None:
    """`refine.method: none`, as shipped: no refiner's prediction, no loss curve of it."""
    plain = "tiny-plain"
    with _configured(finished, name=plain, refine={"method": "none"}):
        wanted = set(finished.would_run())
        finished.snakemake("--", f"results/{plain}/scores/masks.val.json")
    assert {"refine_train", "refine_apply", "masks"} <= wanted
    assert "refine_predict" not in wanted
    results = finished.root / "results" / plain
    for number in (1, 2):
        part = f"val/{number}-of-2.h5"
        with Shard(results / "cams" / part) as cams, Shard(results / "scores_grid" / part) as found:
            for item in found:
                np.testing.assert_array_equal(
                    item.arrays["score"], cams.read(item.id).arrays["refined"]
                )


def test_seeds_come_between_cams_and_weakclip(finished: Project) -> None:
    name = "tiny-seeds"
    refine = CONFIG["refine"] | {"method": "weakclip", "weakclip": {"width": 16, "channels": 16}}  # type: ignore[operator]
    with _configured(finished, name=name, refine=refine):
        wanted = finished.would_run()
        finished.snakemake("--", f"results/{name}/scores/masks.train.json")
        seeds = {"values": [0.2, 0.7]}
        with _configured(finished, name=name, refine=refine, seeds=seeds):
            changed = finished.would_run()
    assert wanted["seeds"] == 2  # one a part of the train split
    assert "seeds" not in finished.would_run()
    results = finished.root / "results" / name
    assert len(list(results.glob("seeds/train/png/*/train/*.png"))) == 14
    assert {"seeds", "refine_train", "refine_apply"} <= set(changed)
    assert "ingest" not in changed
    assert changed["cams"] == 2  # those of val, which was not asked for


def test_an_imported_refiner_is_not_trained(finished: Project) -> None:
    name, file = "tiny-imported", finished.root / "elsewhere.safetensors"
    shutil.copy(finished.results / "refine/checkpoint.safetensors", file)
    refine = CONFIG["refine"] | {"checkpoint": file.name}  # type: ignore[operator]
    with _configured(finished, name=name, refine=refine):
        wanted = finished.would_run()
        finished.snakemake("--", f"results/{name}/refine/checkpoint.safetensors")
        done = finished.would_run()
        content = file.read_bytes()
        file.write_bytes(content + b" ")
        changed = finished.would_run()
        file.write_bytes(content)
    assert wanted["refine_import"] == 1
    assert {"refine_apply", "refine_predict"} <= set(wanted)
    assert not {"refine_train", "efficiency", "seeds"} & set(wanted)
    assert wanted["loss_curve"] == 1  # the segmenter's
    assert "refine_import" not in done
    assert changed["refine_import"] == 1
    imported = finished.root / "results" / name / "refine/checkpoint.safetensors"
    assert imported.read_bytes() == file.read_bytes()


def test_a_sweep_shares_the_cams_and_ends_in_one_table(finished: Project) -> None:
    quick = {"masks": {"crf": {"enabled": False}}, "retrain": {"enabled": False}}
    with _configured(finished, sweep={"refine.weclip.rfm_start": [1, 3]}, **quick):
        trained = finished.would_run()
    values = {"masks.background.value": [0.3, 0.6]}
    with _configured(finished, sweep=values, refine={"method": "none"}, **quick):
        wanted = finished.would_run()
        finished.snakemake("--", f"results/{CONFIG['name']}/tables/sweep.md")
        again = finished.would_run()
    assert trained["refine_train"] == 2
    assert not {"cams", "ingest"} & {*trained, *wanted}
    assert wanted["masks"] == 8  # two values, two splits of two parts
    assert "masks" not in again
    text = (finished.results / "tables/sweep.md").read_text()
    for label in ("value-0.3", "value-0.6", "shared"):
        assert f"| {label} |" in text
    assert "pseudo mask, train" in text
    assert (finished.results / "value-0.6/masks/train/1-of-2.h5").is_file()


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
        wanted = finished.would_run()
    parts = wanted["refine_apply"] // len(runs)  # of both splits
    assert wanted["cams"] == 2 * parts
    assert wanted["refine_train"] == len(runs)
    assert "ingest" not in wanted


def test_another_segmenter_is_two_trainings_and_nothing_else(finished: Project) -> None:
    def matrix(**segmenters: object) -> dict[str, object]:
        plain = {"cams": {"affinity": {"enabled": False}}}
        return {"cams": {"spread": {}, "plain": plain}, "retrain": segmenters}

    def weights(segmenter: str) -> list[str]:
        folders = (f"results/tiny-matrix/{cams}/{segmenter}" for cams in ("spread", "plain"))
        return [f"{folder}/segmenter/weights.safetensors" for folder in folders]

    shared = {"name": "tiny-matrix", "shards": 1, "refine": {"method": "none"}}
    shared |= {"masks": {"crf": {"enabled": False}}}
    with _configured(finished, matrix=matrix(first={}), **shared):
        finished.snakemake("--", *weights("first"))
    both = matrix(second={"retrain": {"lr": 1e-5}}, first={})
    with _configured(finished, matrix=both, **shared):
        everything = finished.would_run()
        dry = finished.snakemake("--dry-run", "--", *weights("second"), *weights("first")).stdout
    assert jobs(dry) == {"retrain": 2}
    assert everything["retrain"] == 2
    assert not {"ingest", "refine_train"} & set(everything)
    assert (finished.root / "results/tiny-matrix/plain/masks/train/1-of-1.h5").is_file()
    assert (finished.root / "results/tiny-matrix/cams/train/1-of-1.h5").is_file()  # as configured


def test_a_table_of_a_paper_is_a_target(finished: Project) -> None:
    prompts = jobs(finished.snakemake("--dry-run", "table_weakclip_prompts").stdout)
    assert prompts["refine_train"] == 4
    assert prompts["ingest"] == 1
    assert prompts["table_weakclip_prompts"] == 1
    matrix = jobs(finished.snakemake("--dry-run", "table_demo_matrix").stdout)
    assert (matrix["refine_train"], matrix["retrain"]) == (8, 8)
    assert matrix["demo_data_1"] == 1
    assert "demo_data" not in matrix  # that of the configuration, elsewhere


def test_unknown_key_stops_with_one_clear_message(finished: Project) -> None:
    with _configured(finished, retrian={"lr": 1.0}):
        done = finished.snakemake("--dry-run", check=False)
    assert done.returncode != 0
    assert "did you mean retrain?" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_report_is_one_file_with_table_and_pictures(finished: Project, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    finished.snakemake("--report", str(report))
    text = report.read_text(encoding="utf-8")
    for needle in ("contact sheet", "segmenter loss", "refiner loss", "IoU per class", "table"):
        assert needle in text
    for name in ("train.png", "val.png", "class_iou.png", "segmenter_loss.png", "table.html"):
        assert re.search(rf"data:[a-z/]+;charset=utf8;filename={re.escape(name)};base64,", text)
