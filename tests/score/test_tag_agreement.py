"""Truth that contradicts the tags is refused, or written next to every score."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from wsss.score.metrics.image_counts import CountTable, ImageCounts
from wsss.score.record import read_records
from wsss.score.tables.terminal import print_table
from wsss.score.tables.write import make_table
from wsss.score.tag_agreement import TagAgreement, compare_with_tags
from wsss.score.truth.errors import TruthError

from .conftest import Run, save_mask

LABELS = ("background", "cat", "boat", "tree")
VOID = ()  # no label was counted


def compare(*images: tuple[Sequence[int], Sequence[int]]) -> TagAgreement:
    """Compare (tags, labels in the truth) of images; predictions are all background."""
    counts = ImageCounts(len(LABELS), CountTable)
    for number, (_, shown) in enumerate(images):
        matrix = np.zeros((len(LABELS), len(LABELS)), np.int64)
        matrix[list(shown), 0] = 5
        counts.add(str(number), matrix)
    tags = {str(number): tags for number, (tags, _) in enumerate(images)}
    return compare_with_tags(counts.table(), tags, LABELS, "some/masks")


FITS = ([0], [0, 1])


def test_truth_that_fits() -> None:
    agreement = compare(FITS, ([1, 2], [2, 3]), ([], [0, 3]), ([], VOID))
    assert agreement == TagAgreement(images=2, without_tags=0, with_other_objects=0, absent={})
    assert agreement.warnings == []


def test_a_few_differences_are_counted_in_silence() -> None:
    """Small and difficult objects have no pixel; SBD's masks show objects without a box."""
    agreement = compare(*[FITS] * 30, ([0, 1], [1]), ([0], [0]), ([0], [1, 3]), ([1], [2]))
    assert (agreement.images, agreement.without_tags, agreement.with_other_objects) == (34, 1, 1)
    assert agreement.warnings == []


@pytest.mark.parametrize(
    ("others", "warning"),
    [
        ([([1], [0])], "tagged, but in no truth of these images: boat (1 images)"),
        ([([0], [0])] * 2, "2 of 22 images: the truth shows none of their tags"),
        ([([0], [1, 2])] * 3, "3 of 23 images: the truth shows objects that no tag names"),
    ],
)
def test_many_differences_are_warnings(
    others: list[tuple[list[int], list[int]]], warning: str
) -> None:
    assert warning in compare(*[FITS] * 20, *others).warnings


@pytest.mark.parametrize(
    ("images", "message"),
    [
        # 0 and 255; palettes of their own, where 1 is the first class; another order of classes
        ([([0], [0]), ([1], VOID), ([2], VOID)], "background (0) and void (255) alone"),
        ([([1], [0, 1]), ([0], [0, 1]), ([2], [0, 1])], "'0' is tagged boat, its truth shows cat"),
        ([([0], [2]), ([1], [1]), ([2], [3])], "2 of 3 images shows none of their tags"),
        # One class whose masks were not drawn.
        ([FITS] * 20 + [([1], [0])] * 5, "of all 5 images tagged 'boat' shows no object"),
    ],
)
def test_a_contradiction_is_an_error(
    images: list[tuple[list[int], list[int]]], message: str
) -> None:
    with pytest.raises(TruthError) as caught:
        compare(*images)
    text = str(caught.value)
    assert text.startswith("some/masks: contradicts the tags: the ground truth of ")
    assert message in text
    assert "0 background, 1 cat, 2 boat, 3 tree" in text


def test_one_image_is_no_evidence() -> None:
    assert compare(([0], VOID)).absent == {"cat": 1}
    assert compare(FITS, *[([1], [0])] * 1).absent == {"boat": 1}


def rewrite_truth(run: Run, change: Callable[[np.ndarray], np.ndarray]) -> None:
    for image, truth in run.truth.items():
        labels = change(truth).astype(np.uint8)
        save_mask(run.folder / "data/SegmentationClass" / f"{image}.png", labels)


def test_scores_of_binary_masks_are_refused(run: Run, tmp_path: Path) -> None:
    rewrite_truth(run, lambda truth: np.where(truth > 0, 255, 0))
    out = tmp_path / "scores.json"
    for product, shards in (("blob", []), ("cam", run.cam_shards())):
        with pytest.raises(TruthError, match="5 of 5 images shows none of their tags"):
            run.score(product, shards, out)
    assert not out.exists()


def test_warnings_stand_next_to_the_scores(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log, the record, the tables and on the screen."""
    out = tmp_path / "scores.json"
    (record, *_) = run.score("blob", [], out)
    assert record.truth_warnings == []
    make_table([out], tmp_path)
    assert "WARNING" not in (tmp_path / "table.md").read_text()

    rewrite_truth(run, lambda truth: np.where(truth == 3, 0, truth))
    run.score("blob", [], out)
    (record, *_) = read_records([out])
    warning = "tagged, but in no truth of these images: tree"
    assert warning in record.truth_warnings[0]
    assert f"SegmentationClass: {warning}" in caplog.records[0].getMessage()
    make_table([out], tmp_path)
    note = f"WARNING. Truth of train: {warning}"
    for name in ("table.md", "table.html"):
        assert note in (tmp_path / name).read_text()
    console = Console(width=200, record=True)
    print_table(tmp_path / "table.csv", console)
    assert note in console.export_text()
