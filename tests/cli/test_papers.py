"""Tables of papers and differences, as a person types them."""

from pathlib import Path

import numpy as np
import pytest
import typer
import yaml
from typer.testing import CliRunner

from wsss.artifacts.provenance import Provenance
from wsss.cli.app import app
from wsss.cli.commands.papers import parse_records
from wsss.score.image_counts_file import write_image_counts
from wsss.score.metrics.image_counts import CountTable, ImageCounts, RowCounts
from wsss.score.record import Record, numbers, write_records

ROOT = Path(__file__).parents[2]
NAMES = ("background", "cat", "boat")
MADE = Provenance(stage="score", config={}, seed=0, code="c0de" * 16, packages={})


def written(path: Path, wrong: int) -> Path:
    """Records of a refiner's prediction of four images, `wrong` pixels of each mistaken."""
    counts = ImageCounts(3, CountTable)
    for index in range(4):
        matrix = np.diag([90, 40 + index, 30]).astype(np.int64)
        matrix[1, :2] += (wrong, -wrong)
        counts.add(f"image {index}", matrix)
    rows, tags = {"single": RowCounts(counts.table())}, {f"image {n}": [0] for n in range(4)}
    file, interval = write_image_counts(path, rows, MADE, tags, "union", 50)["single"]
    rest = {
        "product": "refiner_prediction", "protocol": "single", "method": "weclip",
        "run": path.stem, "chain": "grad_cam",
        "split": "val", "images": 4, "images_without_truth": 0, "truth": "here",
        "background": None, "crf": False, "scales": (1.0,), "seed": 0,
        "variant": "corrected", "weights": {}, "provenance": MADE, "shard_provenance": (MADE,),
        "miou_low": interval.low, "miou_high": interval.high, "resamples": 50,
        "image_counts": file,
    }  # fmt: skip
    record = {**numbers(counts.table().total(), NAMES, []), **rest}
    write_records(path, [Record.model_validate(record)])
    return path


def test_difference_of_two_runs(tmp_path: Path) -> None:
    first, second = written(tmp_path / "one.json", 2), written(tmp_path / "other.json", 9)
    out = tmp_path / "difference.csv"
    command = ["difference", str(first), str(second), "--out", str(out), "--resamples", "60"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("WeCLIP prediction, val, 4 images: ")
    assert "above 0 in 100 % of the draws" in result.output
    covers = "resampled images, one training of each run"
    assert result.output.rstrip().endswith(f"; {covers})")
    assert out.read_text().splitlines()[1].endswith(f',60,"{covers}",union')


def test_paper_table_takes_rows_and_paths(tmp_path: Path) -> None:
    table = {
        "title": "A table",
        "columns": {"val": {"title": "val", "product": "refiner_prediction"}},
        "rows": [{"name": "Mine", "preset": "demo-weclip"}],
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(table))
    record = written(tmp_path / "one.json", 2)
    command = ["paper-table", str(tmp_path / "mine.yaml"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*command, "--records", f"mine={record}"])
    assert result.exit_code == 0, result.output
    assert result.output.split() == [str(tmp_path / f"out/mine.{s}") for s in ("md", "csv", "html")]
    assert "| Mine | 9" in (tmp_path / "out/mine.md").read_text()


def test_table_runs_are_printed() -> None:
    path = ROOT / "workflow/tables/weclip_rfm.yaml"
    result = CliRunner().invoke(app, ["table-runs", str(path)])
    assert result.exit_code == 0, result.output
    runs = yaml.safe_load(result.output)
    assert list(runs) == ["decoder-alone", "decoder-rfm"]
    assert runs["decoder-alone"]["refine"]["weclip"]["rfm_start"] == 30000


def test_records_are_rows_and_paths() -> None:
    records = parse_records(["a=x.json", "b=y=z.json", "a=w"])
    assert records == {"a": [Path("x.json"), Path("w")], "b": [Path("y=z.json")]}
    for wrong in ("a", "=x", "a="):
        with pytest.raises(typer.BadParameter, match="expected ROW=PATH"):
            parse_records([wrong])
