"""Runs side by side, and what a training cost beside the papers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wsss.artifacts.checksum import json_with_checksum
from wsss.artifacts.errors import ArtifactError
from wsss.refine.training.efficiency import Efficiency
from wsss.score.record import Record
from wsss.score.tables.comparison import make_comparison, rows_by_run
from wsss.score.tables.efficiency import make_efficiency
from wsss.score.tables.seeds import made_alike, mean_text, without_seed

from .test_write import make_record


def _records() -> list[Record]:
    return [
        make_record(run="sweep"),
        make_record("pseudo mask", run="sweep.prompts-2", miou=0.5, report_mean=0.4),
        make_record("pseudo mask", run="sweep.prompts-4", miou=0.6),
        make_record("segmenter", run="sweep.prompts-4", split="val", stage="retrain"),
    ]


def _lines(records: list[Record], folder: Path) -> list[str]:
    written = make_comparison(rows_by_run(records, "sweep"), folder, "sweep")
    return written[0].read_text().splitlines()


def test_runs_stand_side_by_side(tmp_path: Path) -> None:
    rows = rows_by_run(_records(), "sweep")
    assert list(rows) == ["shared", "prompts-2", "prompts-4"]
    shared = rows.pop("shared")
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


def test_few_runs_with_many_products_are_columns(tmp_path: Path) -> None:
    records = [
        make_record(row, run=f"sweep.prompts-{prompts}", miou=prompts / 10, report_mean=0.1)
        for row in ("CAM", "pseudo mask", "segmenter")
        for prompts in (2, 4)
    ]
    lines = _lines(records, tmp_path)
    assert lines.count("| product | prompts-2 | prompts-4 |") == 2  # also of the report classes
    assert "| pseudo mask, train | 20.0 | 40.0 |" in lines
    assert "| pseudo mask, train | 10.0 | 10.0 |" in lines


def _seeds(values: dict[tuple[int, int], float], **changes: object) -> list[Record]:
    """A record for each (prompts, seed)."""
    return [
        make_record(
            "pseudo mask", run=f"sweep.prompts-{prompts}_seed-{seed}", seed=seed, miou=value,
            stage="masks", **changes,
        )
        for (prompts, seed), value in values.items()
    ]  # fmt: skip


def test_seeds_become_mean_and_deviation(tmp_path: Path) -> None:
    values = {(2, 0): 0.50, (2, 1): 0.52, (2, 2): 0.57, (4, 0): 0.6, (4, 1): 0.64, (8, 0): 0.7}
    lines = _lines(_seeds(values), tmp_path)
    assert "| prompts-2_seed-1 | 52.0 |" in lines
    assert "| prompts-2, 3 seeds | 53.0 ± 3.6 |" in lines  # sqrt((9 + 1 + 16) / 2)
    assert "| prompts-4, 2 seeds | 62.0 ± 2.8 |" in lines
    assert not any(line.startswith("| prompts-8, ") for line in lines)
    assert any("differ in the seed alone" in line for line in lines)


def test_a_sweep_over_seeds_alone(tmp_path: Path) -> None:
    records = [make_record(run=f"sweep.seed-{n}", seed=n, miou=0.4 + n / 10) for n in range(3)]
    lines = _lines(records, tmp_path)
    assert "| 3 seeds | 50.0 ± 10.0 |" in lines


def test_what_differs_in_more_than_the_seed_has_no_mean(tmp_path: Path) -> None:
    one, other = _seeds({(2, 0): 0.5, (2, 1): 0.6})
    config = other.provenance.model_copy(update={"config": {"masks": {"crf": False}}})
    changes = ({"provenance": config}, {"variant": "published"}, {"images": 5}, {"truth": "there"})
    assert made_alike([one, other])
    for change in changes:
        records = [one, other.model_copy(update=change)]
        assert not made_alike(records)
        assert "| prompts-2, 2 seeds |  |" in _lines(records, tmp_path)
    assert not made_alike([one, one])


def test_what_no_seed_comes_before_stands_in_the_row_of_the_seeds(tmp_path: Path) -> None:
    shared, other = make_record(run="sweep.a", miou=0.3), make_record(run="sweep.b", miou=0.2)
    masks = {
        record.run.removeprefix("sweep."): record for record in _seeds({(2, 0): 0.5, (2, 1): 0.6})
    }
    rows = {label: [shared, record] for label, record in masks.items()} | {"b": [other]}
    written = make_comparison(rows, tmp_path, "sweep")[0].read_text()
    assert "| prompts-2, 2 seeds | 30.0 | 55.0 ± 7.1 |" in written


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("prompts-2_seed-12", "prompts-2"),
        ("seed-3_prompts-2", "prompts-2"),
        ("svc/weclip/seed-1", "svc/weclip"),
        ("seed-0", ""),
        ("linseed-3", "linseed-3"),
        ("odd_", "odd_"),
    ],
)
def test_the_seed_is_left_out_of_the_label(label: str, expected: str) -> None:
    assert without_seed(label) == expected


def test_one_value_has_no_deviation() -> None:
    assert mean_text([0.5]) == "50.0"
    assert mean_text([0.01, 0.03], "+") == "+2.0 ± 1.4"
    with pytest.raises(ValueError, match="no values"):
        mean_text([])


def test_cost_stands_beside_the_papers(tmp_path: Path) -> None:
    cost = Efficiency(
        method="WeakCLIP", trained_parameters=21_240_853, parameters=171_464_725,
        images_per_second=12.34, peak_memory=3 * 2**30, device="a GPU",
    )  # fmt: skip
    source = tmp_path / "efficiency.json"
    source.write_text(json.dumps(json_with_checksum(cost.model_dump())))
    lines = make_efficiency(source, tmp_path)[0].read_text().splitlines()
    assert "| WeakCLIP, ours | 21.2 | 171.5 | 12.4 | 12.3 | 3.0 | a GPU |" in lines
    assert "| WeakCLIP, published | 21.2 | 171.5 | 12.4 | 16.8 | 9.7 |  |" in lines


@pytest.mark.parametrize("content", [None, "null", "{}", "no json"])
def test_what_says_no_cost_is_refused(tmp_path: Path, content: str | None) -> None:
    source = tmp_path / "efficiency.json"
    if content is not None:
        source.write_text(content)
    with pytest.raises(
        ArtifactError, match=r"efficiency\.json: (no such file|does not say|carries no digest)"
    ):
        make_efficiency(source, tmp_path)
