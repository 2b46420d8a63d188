"""The demo's matrix, reduced, ends in a table without a gap.

Two of its chains, in its columns: that of the finished project, and one more from its images, up
to the refiner. What remains is the machinery; `snakemake table_demo_matrix` is the full table.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import CONFIG, ROOT, RUN, Project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

TABLE = "tiny_matrix"
SHARED, OWN = "Grad-CAM, WeCLIP", "patch-text, ExCEL"


def _reduced() -> dict[str, Any]:
    """Two rows of `demo_matrix` in all its columns, over the images of the finished project."""
    table: dict[str, Any] = yaml.safe_load((ROOT / "workflow/tables/demo_matrix.yaml").read_text())
    del table["changes"]
    rows = {row["name"]: row for row in table["rows"]}
    table["rows"] = [rows[SHARED] | {"preset": RUN}, rows[OWN] | {"preset": RUN}]
    preset = yaml.safe_load((ROOT / "workflow/presets/demo-excel.yaml").read_text())
    table["rows"][1]["changes"] = {
        **{section: preset[section] for section in ("clip", "cams", "retrain")},
        "shards": 1,
        "refine": {
            "method": "excel",
            "excel": {"width": 16, "lvc_start": 2, "crop_visibility": "image"},
        },
        "infer": {"scales": [1.0]},
    }
    return table


@pytest.fixture(scope="module")
def run(finished: Project) -> Iterator[dict[str, int]]:
    """The jobs that the table took in the finished project."""
    preset, table = (
        finished.root / "workflow" / name
        for name in (f"presets/{RUN}.yaml", f"tables/{TABLE}.yaml")
    )
    preset.write_text(yaml.safe_dump(CONFIG))
    table.write_text(yaml.safe_dump(_reduced()))
    yield finished.runs(f"table_{TABLE}")
    preset.unlink()
    table.unlink()


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_every_chain_has_a_number_in_every_column(run: dict[str, int], finished: Project) -> None:
    table = _reduced()
    rows = _rows(finished.root / f"results/tables/{TABLE}/{TABLE}.csv")
    expected = [
        (row["name"], column)
        for row in table["rows"]
        for column in table["columns"]
        if column != "val" or row["name"] == SHARED  # the other has no segmenter
    ]
    assert len(expected) == 7
    assert [(row["row"], row["column"]) for row in rows] == expected
    assert all(0 <= float(row["ours"]) <= 100 for row in rows)


def test_one_chain_is_there_and_the_other_is_made_once(run: dict[str, int]) -> None:
    made_once = ("ingest", "cams", "refine_train", "refine_apply", "refine_predict", "masks")
    made_once += ("refine_predict_nothing",)  # without GPUs the other one does it all
    scored = ("score_affinity", "score_masks", "score_refiner_prediction")
    assert run == dict.fromkeys((*made_once, *scored, f"table_{TABLE}"), 1)


def test_per_class_bars_and_the_report(
    run: dict[str, int], finished: Project, tmp_path: Path
) -> None:
    bars = finished.root / f"results/tables/{TABLE}/{TABLE}.png"
    assert bars.read_bytes().startswith(b"\x89PNG")
    report = tmp_path / "report.html"
    finished.snakemake(f"table_{TABLE}", "--report", str(report))
    text = report.read_text(encoding="utf-8")
    for file in (f"{TABLE}.html", f"{TABLE}.png"):
        assert re.search(rf"data:[a-z/]+;charset=utf8;filename={re.escape(file)};base64,", text)


def test_a_second_run_has_nothing_to_do(run: dict[str, int], finished: Project) -> None:
    assert not finished.would_run(f"table_{TABLE}")
