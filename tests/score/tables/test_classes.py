"""What `wsss table` and `wsss show --classes` say of single classes."""

import csv
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from wsss.cli.app import app
from wsss.score.record import read_records, write_records

from ..conftest import Run


@pytest.fixture
def results(run: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run with scores and tables; two classes share all images."""
    monkeypatch.setattr("wsss.score.metrics.cooccurrence.FEWEST_IMAGES", 1)
    folder = run.folder / "results"
    moved = {
        image: {"single": np.roll(np.where(truth == 255, 0, truth), 2, axis=1)}
        for image, truth in run.truth.items()
    }
    files = [folder / "scores/cam.train.json", folder / "scores/predictions.train.json"]
    run.score("cam", run.cam_shards(), files[0])
    run.score("segmenter", [run.write("prediction", "predictions", moved)], files[1])
    command = ["table", *map(str, files), "--out", str(folder / "tables")]
    assert CliRunner().invoke(app, command).exit_code == 0
    return folder


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_classes_have_a_line_per_row_and_label(results: Path) -> None:
    rows = lines(results / "tables/classes.csv")
    assert [row["row"] for row in rows[::4]] == ["CAM", "CAM, best threshold", "segmenter"]
    records = read_records(sorted(results.glob("scores/*.json")))
    for row, record in zip(rows[::4], records, strict=True):
        assert row["class"] == "background"
        assert float(row["iou"]) == record.iou["background"]
        assert float(row["false_negative"]) == record.false_negative_by_class["background"]
        assert row["boundary_iou"] == str(record.boundary_iou.get("background") or "")
    assert rows[4]["boundary_iou"] == ""  # no label map is made at the best threshold
    markdown = (results / "tables/classes.md").read_text()
    for title in ("IoU", "Boundary IoU", "False positives", "False negatives"):
        assert f"## {title} of each class" in markdown
        assert f"<h2>{title} of each class</h2>" in (results / "tables/classes.html").read_text()
    near = records[-1].boundary_iou
    cells = " | ".join(f"{100 * share:.1f}" for share in near.values())
    assert f"| segmenter | train | {cells} |" in markdown
    assert "Boundary regions: 0.02 of the diagonal." in markdown


def test_show_prints_classes_where_asked(results: Path) -> None:
    plain = CliRunner().invoke(app, ["show", str(results)]).output
    assert "mIoU in percent: mean over the labels in truth or prediction (union > 0)" in plain
    assert "false pos." not in plain
    text = CliRunner().invoke(app, ["show", str(results), "--classes"]).output
    printed_lines = [line for line in text.splitlines() if str(results) not in line]
    assert max(map(len, printed_lines)) <= 100
    numbers = {
        row["class"]: row
        for row in lines(results / "tables/classes.csv")
        if row["row"] == "segmenter"
    }
    pairs = [row for row in lines(results / "tables/pairs.csv") if row["row"] == "segmenter"]
    printed = text.split("segmenter, train")[1].splitlines()
    for name, row in numbers.items():
        (line,) = [line for line in printed if line.split()[:1] == [name]]
        shown = [f"{100 * float(row[k]):.1f}" for k in ("iou", "boundary_iou", "false_positive")]
        assert line.split()[1:4] == shown
        for pair in pairs:
            if pair["class"] == name and pair["images_tagged"] != "with partner":
                some = pair["images"] != "0"
                assert (f"{100 * float(pair['iou']):.1f} ({pair['images']})" in line) if some else 1
    confused = [row for row in pairs if float(row["predicted_as_partner"] or 0)]
    assert confused
    worst = max(confused, key=lambda row: float(row["predicted_as_partner"]))
    assert f"{worst['partner']} {100 * float(worst['predicted_as_partner']):.1f}" in text


def test_records_of_an_older_version_have_a_table(results: Path, tmp_path: Path) -> None:
    """Without boundaries, shares and counts."""
    old = {
        "boundary_iou": {}, "boundary_miou": None, "boundary_ratio": 0, "image_counts": None,
        "false_positive": None, "false_positive_by_class": {},
        "false_negative": None, "false_negative_by_class": {},
    }  # fmt: skip
    (record,) = read_records([results / "scores/predictions.train.json"])
    write_records(tmp_path / "old.json", [record.model_copy(update=old)])
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["table", str(tmp_path / "old.json"), "--out", str(out)])
    assert done.exit_code == 0
    assert lines(out / "pairs.csv") == []
    assert "Boundary IoU of each class" not in (out / "classes.md").read_text()
    (out.parent / "tables").symlink_to(out)
    assert (
        "segmenter, train" in CliRunner().invoke(app, ["show", "--classes", str(tmp_path)]).output
    )
