"""A supervised upper bound in tables and pictures: called so everywhere, mixed with nothing."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from tests.builders import provenance, write_shard
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.shard import Shard
from wsss.config.base import MIXED, UPPER_BOUND
from wsss.score.image_counts_file import Scored
from wsss.score.record import Record, write_records
from wsss.score.tables.comparison import make_comparison
from wsss.score.tables.difference import differences, sentence
from wsss.score.tables.seeds import are_repeats
from wsss.score.tables.terminal import print_table
from wsss.score.tables.write import make_table

from ..conftest import Run
from .test_write import make_record

TITLE = f"segmenter, {UPPER_BOUND}"


def pair(seed: int = 0) -> tuple[Record, Record]:
    """A segmenter taught by pseudo masks, and one taught by the truth."""
    end = {"background": None, "split": "val", "seed": seed}
    weak = make_record("segmenter", run="weak", miou=0.5 + seed / 100, **end)
    upper = make_record("segmenter", run="upper", miou=0.8, supervision="masks", **end)
    return weak, upper


def scored(records: dict[str, Record]) -> dict[str, list[Scored]]:
    return {label: [Scored(Path("records.json"), record)] for label, record in records.items()}


def test_a_table_puts_upper_bounds_last_and_says_so(tmp_path: Path) -> None:
    weak, upper = pair()
    write_records(tmp_path / "records.json", [upper, weak])
    markdown, _, html = make_table([tmp_path / "records.json"], tmp_path)
    lines = markdown.read_text().splitlines()
    assert lines[4:8] == [
        "| **Without tags** |  |",
        "| segmenter, weak | 50.0 |",
        f"| **Without tags, {UPPER_BOUND}** |  |",
        "| segmenter, upper | 80.0 |",
    ]
    numbers = [line.split(" | ")[:2] for line in lines if line.startswith("| segmenter")][-2:]
    assert numbers == [["| segmenter", "I"], [f"| {TITLE}", "F"]]
    assert f"Supervision F: {UPPER_BOUND}" in html.read_text()
    buffer = io.StringIO()
    print_table(tmp_path / "table.csv", Console(file=buffer, width=200))
    assert f"Without tags, {UPPER_BOUND}" in buffer.getvalue()
    assert buffer.getvalue().startswith("weak, upper")
    write_records(tmp_path / "records.json", [upper])
    markdown, _, html = make_table([tmp_path / "records.json"], tmp_path)
    assert markdown.read_text().startswith(f"# upper, {UPPER_BOUND}: ")
    assert f"<title>upper, {UPPER_BOUND}: " in html.read_text()
    buffer = io.StringIO()
    print_table(tmp_path / "table.csv", Console(file=buffer, width=200))
    assert buffer.getvalue().startswith(f"upper, {UPPER_BOUND}")


def test_a_segmenter_of_mixed_supervision_is_no_weak_row(tmp_path: Path, run: Run) -> None:
    weak, upper = pair()
    fields = {"run": "hand", "supervision": "mixed", "miou": 0.6}
    mixed = weak.model_copy(update=fields | {"learned": {"pseudo masks": 4, "corrected masks": 2}})
    write_records(tmp_path / "records.json", [upper, mixed, weak])
    markdown, _, _ = make_table([tmp_path / "records.json"], tmp_path)
    lines = markdown.read_text().splitlines()
    assert lines[4:10] == [
        "| **Without tags** |  |",
        "| segmenter, weak | 50.0 |",
        f"| **Without tags, {MIXED}** |  |",
        "| segmenter, hand | 60.0 |",
        f"| **Without tags, {UPPER_BOUND}** |  |",
        "| segmenter, upper | 80.0 |",
    ]
    assert f"| segmenter, {MIXED} | M |" in markdown.read_text()
    buffer = io.StringIO()
    print_table(tmp_path / "table.csv", Console(file=buffer, width=200))
    for text in (markdown.read_text(), buffer.getvalue().replace("\n", " ")):
        assert "It learned from 4 pseudo masks, 2 corrected masks" in text
    rows = scored({"hand": mixed, "weak": weak})
    table = make_comparison(rows, tmp_path, "runs")[0].read_text()
    assert f"| run | segmenter, {MIXED}, val | segmenter, val |" in table
    assert not are_repeats([weak, mixed])


def test_the_record_of_a_corrected_run_counts_its_masks(run: Run) -> None:
    retrain = run.config.retrain.model_copy(update={"corrected": "hand"})
    config = run.config.model_copy(update={"retrain": retrain})
    maps = {image: {"single": labels % 4} for image, labels in run.truth.items()}
    weak, counts = run.write("weak", "predictions", maps), {"corrected masks": 2}
    taught = provenance("retrain", config={"retrain": {"corrected": "hand"}}, learned=counts)
    with Shard(weak) as stored:
        origin = provenance("predict", upstream=taught.chain())
        shard = write_shard(run.folder / "mixed.h5", "predictions", list(stored), origin)
    with pytest.raises(ArtifactError, match=r"mixed\.h5: was made with retrain\.corrected, mixed"):
        run.score("segmenter", [shard], run.folder / "r.json")
    (record,) = run.score("segmenter", [shard], run.folder / "r.json", config=config)
    assert (record.supervision, record.learned) == ("mixed", counts)
    assert record.mixture == "2 corrected masks (hand)"
    assert record.chain.endswith("some corrected → segformer-b0")


def test_a_table_of_weak_rows_has_no_such_column(tmp_path: Path) -> None:
    write_records(tmp_path / "records.json", [pair()[0]])
    text = make_table([tmp_path / "records.json"], tmp_path)[0].read_text()
    assert "upervision" not in text


def test_runs_side_by_side_have_a_column_of_their_own(tmp_path: Path) -> None:
    (weak, upper), (second, _) = pair(), pair(seed=1)
    rows = scored({"upper": upper, "weak_seed-0": weak, "weak_seed-1": second})
    lines = make_comparison(rows, tmp_path, "runs")[0].read_text().splitlines()
    assert f"| run | segmenter, val | {TITLE}, val |" in lines
    assert "| weak_seed-0 | 50.0 |  |" in lines
    assert "| upper |  | 80.0 |" in lines
    assert "| weak, 2 seeds | 50.5 ± 0.7 |  |" in lines


def test_means_over_seeds_never_mix(tmp_path: Path) -> None:
    (weak, upper), (second, other) = pair(), pair(seed=1)
    assert are_repeats([weak, second])
    assert are_repeats([upper, other])
    assert not are_repeats([weak, other])
    rows = scored({"a_seed-0": weak, "a_seed-1": other})  # one label for both
    lines = make_comparison(rows, tmp_path, "runs")[0].read_text().splitlines()
    assert not any("±" in line for line in lines if line.startswith("|"))
    assert any("a, 2 seeds" in line for line in lines)


def test_records_say_what_taught_and_weak_scores_refuse_an_upper_bound(run: Run) -> None:
    maps = {image: {"single": labels % 4} for image, labels in run.truth.items()}
    shard = run.write("weak", "predictions", maps)
    supervised = run.config.model_copy(update={"supervision": "masks"})
    origin = provenance("predict", config={"supervision": "masks"})
    with Shard(shard) as stored:
        upper = write_shard(run.folder / "upper.h5", "predictions", list(stored), origin)
    with pytest.raises(ArtifactError, match=r"upper\.h5: was made with supervision: masks"):
        run.score("segmenter", [upper], run.folder / "r.json")
    with pytest.raises(ArtifactError, match=r"weak\.h5: was made without pixel labels"):
        run.score("segmenter", [shard], run.folder / "r.json", config=supervised)
    (first,) = run.score("segmenter", [shard], run.folder / "weak.json")
    (second,) = run.score("segmenter", [upper], run.folder / "upper.json", config=supervised)
    assert (first.supervision, second.supervision) == ("tags", "masks")
    assert second.chain == "pixel labels → segformer-b0"
    assert second.method == "none"
    (compared,) = differences(run.folder / "weak.json", run.folder / "upper.json", resamples=10)
    assert sentence(compared).startswith(f"segmenter - {TITLE}, train")
