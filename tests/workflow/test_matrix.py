"""The demo's matrix, reduced, ends in a table without a gap.

Two chains from the same CAMs, one of them up to the segmenter, few images and trainings of three
steps: what remains is the machinery. `snakemake table_demo_matrix` is the full table.
"""

import csv
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import ROOT, Project, copy_project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

TABLE = "tiny_matrix"
ROWS = ("patch-text", "patch-text, ExCEL")


def _reduced() -> dict[str, Any]:
    """Some rows of `demo_matrix` in all its columns, over fewer images and steps."""
    table: dict[str, Any] = yaml.safe_load((ROOT / "workflow/tables/demo_matrix.yaml").read_text())
    steps = {"iterations": 3, "warmup": 1, "batch": 2, "checkpoint_every": 3, "threads": 1}
    table["rows"] = [row for row in table["rows"] if row["name"] in ROWS]
    changes = table["changes"]
    changes |= {"shards": 1, "data": {"root": "results/tiny-data", "demo_images": [14, 4]}}
    changes["refine"] = {
        "train": steps,
        "excel": {"width": 16, "lvc_start": 2, "crop_visibility": "image"},
    }
    changes["retrain"] |= steps | {"crop": 64}
    table["rows"][0]["changes"]["retrain"] = {"enabled": False}
    return table


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a finished table."""
    copy = copy_project(tmp_path_factory.mktemp("matrix"))
    (copy.root / f"workflow/tables/{TABLE}.yaml").write_text(yaml.safe_dump(_reduced()))
    copy.snakemake(f"table_{TABLE}")
    return copy


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_every_chain_has_a_number_in_every_column(project: Project) -> None:
    table = _reduced()
    rows = _rows(project.root / f"results/tables/{TABLE}/{TABLE}.csv")
    expected = [
        (row["name"], column)
        for row in table["rows"]
        for column in table["columns"]
        if column not in {"refiner", "val"} or "," in row["name"]  # the first chain has neither
    ]
    assert len(table["rows"]) == len(ROWS)
    assert [(row["row"], row["column"]) for row in rows] == expected
    assert all(0 <= float(row["ours"]) <= 100 for row in rows)


def test_cams_and_manifest_are_computed_once_per_source(project: Project) -> None:
    results = project.root / "results"
    cams = [path.relative_to(results).parts[0] for path in results.glob("**/cams/train/1-of-1.h5")]
    assert sorted(set(cams)) == sorted(cams)
    assert len(cams) == 1
    assert len(list(results.glob("**/segmenter/weights.safetensors"))) == 1


def test_per_class_bars_and_the_report(project: Project, tmp_path: Path) -> None:
    bars = project.root / f"results/tables/{TABLE}/{TABLE}.png"
    assert bars.read_bytes().startswith(b"\x89PNG")
    report = tmp_path / "report.html"
    project.snakemake(f"table_{TABLE}", "--report", str(report))
    text = report.read_text(encoding="utf-8")
    for file in (f"{TABLE}.html", f"{TABLE}.png"):
        assert re.search(rf"data:[a-z/]+;charset=utf8;filename={re.escape(file)};base64,", text)


def test_a_second_run_has_nothing_to_do(project: Project) -> None:
    assert not project.would_run(f"table_{TABLE}")
