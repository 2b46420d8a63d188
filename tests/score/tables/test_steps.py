"""Differences to the row before: paired, within a block, of rows that compare."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from wsss.artifacts.errors import ArtifactError
from wsss.score.image_counts_file import image_counts_path, read_image_counts, read_scored
from wsss.score.metrics.bootstrap import IMAGES_OF_PAIRS, difference
from wsss.score.product import ProductName
from wsss.score.record import write_records
from wsss.score.tables.layout import Score, change_text, is_best, lines_of
from wsss.score.tables.steps import (
    CHOSEN,
    WITH_TAGS,
    WITHOUT,
    WITHOUT_CRF,
    Kind,
    Step,
    in_order,
    steps_of,
    words,
)
from wsss.score.tables.write import make_table

from ..conftest import Run
from .test_write import make_record


@pytest.fixture
def files(make_run: Callable[..., Run]) -> list[Path]:
    """Records of the blob, of CAMs and of CAMs with affinity, with counts per image."""
    run = make_run(10)
    shards = {"affinity": run.cam_shards(), "cam": run.cam_shards(), "blob": []}
    written = []
    for product, paths in shards.items():
        written.append(run.folder / f"{product}.json")
        run.score(product, paths, written[-1])  # type: ignore[arg-type]
    return written


def test_a_change_is_the_paired_difference_to_the_row_before(
    files: list[Path], tmp_path: Path
) -> None:
    make_table(files, tmp_path)
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["block"] == WITH_TAGS]
    assert [row["label"] for row in rows] == ["centred blob", "CAM", "CAM + affinity"]
    assert [row["changed_from"] for row in rows] == ["", "centred blob", "CAM"]
    scored = in_order(read_scored(files))
    by_label = {
        step.label: entry
        for entry, step in zip(scored, steps_of(scored), strict=True)
        if step.block == WITH_TAGS
    }
    for row in rows[1:]:
        tables = [
            read_image_counts(by_label[name].record, by_label[name].file)
            for name in (row["label"], row["changed_from"])
        ]
        expected = difference(*tables)
        assert float(row["change"]) == pytest.approx(expected.value)
        assert float(row["change_low"]) == expected.interval.low
        assert float(row["change_high"]) == expected.interval.high
        assert row["change_covers"] == IMAGES_OF_PAIRS


def test_rows_whose_counts_are_gone_have_no_table(files: list[Path], tmp_path: Path) -> None:
    image_counts_path(files[0]).unlink()
    with pytest.raises(ArtifactError, match=r"affinity\.images\.h5"):
        make_table(files, tmp_path)


def _steps(tmp_path: Path, *rows: dict[str, object]) -> list[Step]:
    write_records(tmp_path / "a.json", [make_record(**row) for row in rows])  # type: ignore[arg-type]
    return steps_of(in_order(read_scored([tmp_path / "a.json"])))


def test_rows_with_and_without_tags_stand_apart(tmp_path: Path) -> None:
    clip = {"noise": {"source": "clip", "splits": ["val"], "dropped": 0.0, "added": 0.0},
            "images": 4, "left_out": 0, "precision": 0.9, "recall": 0.8}  # fmt: skip
    given = {**clip, "noise": {**clip["noise"], "source": "given", "dropped": 0.1}}
    best = {"rule": "constant", "value": 0.4, "source": "best on this truth"}
    steps = _steps(
        tmp_path,
        {"product": "segmenter", "protocol": "single_crf", "crf": True, "miou": 0.52},
        {"product": "segmenter", "protocol": "multi", "miou": 0.51},
        {"product": "segmenter", "miou": 0.5},
        {"product": "masks", "crf": True, "miou": 0.6},
        {"product": "masks", "crf": True, "miou": 0.55, "tag_quality": clip, "split": "val"},
        {"product": "cam", "miou": 0.45, "tag_quality": clip, "split": "val"},
        {"product": "cam", "miou": 0.4, "tag_quality": given, "split": "val"},
        {"product": "cam", "miou": 0.7, "background": best},
        {"product": "refiner_prediction", "method": "excel", "miou": 0.48, "split": "val"},
    )
    assert [(step.block, step.label) for step in steps] == [
        (WITH_TAGS, "CAM"),
        (WITH_TAGS, "pseudo mask (CRF)"),
        (WITHOUT, "CAM, CLIP's tags"),
        (WITHOUT, "ExCEL prediction"),
        (WITHOUT, "segmenter"),
        (WITHOUT, "segmenter, multi"),
        (WITHOUT_CRF, "pseudo mask, CLIP's tags"),
        (WITHOUT_CRF, "segmenter"),
        (CHOSEN, "CAM"),
    ]
    # The row before has a number of the same split; without counts there is no interval.
    changes = [step.change and (round(step.change, 9), step.changed_from) for step in steps]
    assert changes == [
        None, None, None, (0.03, "CAM, CLIP's tags"), None, (0.01, "segmenter"), None, None,
        None,
    ]  # fmt: skip
    assert {step.change_low for step in steps} == {None}


@pytest.mark.parametrize(
    "other", [{"class_mean": "truth"}, {"truth_rule": "voc_style"}, {"images": 5}]
)
def test_rows_that_do_not_compare_have_no_change(tmp_path: Path, other: dict[str, object]) -> None:
    (_, step) = _steps(tmp_path, {"miou": 0.4}, {"product": "masks", "miou": 0.5, **other})
    assert step.change is None
    (_, step) = _steps(tmp_path, {"miou": 0.4}, {"product": "masks", "miou": 0.5})
    assert step.change == pytest.approx(0.1)


def test_the_best_as_it_is_printed_is_marked_once_per_block_and_split() -> None:
    def score(label: str, split: str, miou: float, block: str = WITHOUT) -> Score:
        return Score(split, Step(block, label), miou, None, None)

    lines = lines_of(
        [
            score("a", "train", 0.5011),
            score("b", "train", 0.5014),
            score("b", "val", 0.3),
            score("c", "train", 0.45),
            score("c", "val", 0.31),
            score("d", "val", 0.9, CHOSEN),
        ]
    )
    marked = {(line.label, split) for line in lines for split in ("train", "val")
              if is_best(line, split, lines)}  # fmt: skip
    assert marked == {("a", "train"), ("b", "train"), ("c", "val")}  # both print 50.1


@pytest.mark.parametrize("product", ["cam", "refiner_scores"])
def test_a_threshold_that_replaces_a_background_is_no_upper_bound(product: ProductName) -> None:
    text = " ".join(words([Kind("X", product, "single", "", False, True)], has_changes=False))
    assert "upper bound" not in text
    assert ("replaces the background" in text) == (product == "refiner_scores")


def test_a_change_in_words() -> None:
    assert change_text(Step(WITHOUT, "a")) == ""
    assert change_text(Step(WITHOUT, "a", 0.0312)) == "+3.1"
    assert change_text(Step(WITHOUT, "a", -0.009, -0.025, 0.007)) == "-0.9 (-2.5…0.7)"
    assert change_text(Step(WITHOUT, "a", -0.0002, -0.001, -0.0001)) == "+0.0 (-0.1…0.0)"
