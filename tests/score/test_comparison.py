"""Runs side by side, and what a training cost beside the papers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wsss.artifacts.errors import ArtifactError
from wsss.refine.efficiency import Efficiency
from wsss.score.comparison import make_comparison, rows_by_run
from wsss.score.efficiency import make_efficiency
from wsss.score.record import write_records

from .test_table import make_record


def _written(folder: Path) -> list[Path]:
    paths = []
    rows = {
        "shared": [make_record(run="sweep")],
        "two": [make_record("pseudo mask", run="sweep.prompts-2", miou=0.5, report_mean=0.4)],
        "four": [
            make_record("pseudo mask", run="sweep.prompts-4", miou=0.6),
            make_record("segmenter", run="sweep.prompts-4", split="val", stage="retrain"),
        ],
    }
    for name, records in rows.items():
        paths.append(folder / f"{name}.json")
        write_records(paths[-1], records)
    return paths


def test_runs_stand_side_by_side(tmp_path: Path) -> None:
    rows = rows_by_run(_written(tmp_path), "sweep")
    assert list(rows) == ["sweep", "prompts-2", "prompts-4"]
    shared = rows.pop("sweep")
    rows = {label: shared + own for label, own in rows.items()}
    markdown, csv, html = make_comparison(rows, tmp_path / "tables", "sweep")
    assert "# sweep: 2 runs" in markdown.read_text()
    lines = markdown.read_text().splitlines()
    assert "| run | CAM, train | pseudo mask, train | segmenter, val |" in lines
    assert "| prompts-2 |  | 50.0 |  |" in lines
    assert any(line.startswith("| prompts-4 |  | 60.0 | ") for line in lines)
    assert any(line.startswith("| shared | ") for line in lines)
    assert "| prompts-2 |  | 40.0 |  |" in lines  # the report classes
    assert "prompts-4,pseudo mask,train,0,corrected,0.6," in csv.read_text()
    assert "Mean IoU of the report classes" in html.read_text()


def test_cost_stands_beside_the_papers(tmp_path: Path) -> None:
    cost = Efficiency(
        method="WeakCLIP", trained_parameters=21_240_853, parameters=171_464_725,
        images_per_second=12.34, peak_memory=3 * 2**30, device="a GPU",
    )  # fmt: skip
    source = tmp_path / "efficiency.json"
    source.write_text(json.dumps(cost.model_dump()))
    lines = make_efficiency(source, tmp_path)[0].read_text().splitlines()
    assert "| WeakCLIP, ours | 21.2 | 171.5 | 12.4 | 12.3 | 3.0 | a GPU |" in lines
    assert "| WeakCLIP, published | 21.2 | 171.5 | 12.4 | 16.8 | 9.7 |  |" in lines


@pytest.mark.parametrize("content", [None, "null", "{}", "no json"])
def test_what_says_no_cost_is_refused(tmp_path: Path, content: str | None) -> None:
    source = tmp_path / "efficiency.json"
    if content is not None:
        source.write_text(content)
    with pytest.raises(ArtifactError, match=r"efficiency\.json: (no such file|does not say)"):
        make_efficiency(source, tmp_path)
