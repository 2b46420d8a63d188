"""Counts of each image, and intervals over images against a loop."""

from pathlib import Path

import numpy as np
import pytest

from wsss.artifacts.errors import ArtifactError
from wsss.score.image_counts_file import image_counts_path, read_image_counts
from wsss.score.metrics.bootstrap import difference, draw, interval, mean_iou, resampled
from wsss.score.metrics.confusion import metrics_of
from wsss.score.metrics.image_counts import (
    CountTable,
    ImageCounts,
    RowCounts,
    read_boundary,
    read_counts,
    read_tags,
    write_counts,
)
from wsss.score.record import read_records

from ..conftest import PROVENANCE, Run

LABELS = 5


def matrices(seed: int, images: int = 9, *, rare: bool = True) -> dict[str, np.ndarray]:
    """Few labels per image; a rare one occurs in a single image, so that many draws lack it."""
    rng = np.random.default_rng(seed)
    by_image = {}
    for index in range(images):
        matrix = np.zeros((LABELS, LABELS), np.int64)
        here = [0, 1 + index % 3] + [4] * (rare and index == 3)
        block = rng.integers(1, 90, (len(here), len(here)))
        matrix[np.ix_(here, here)] = block + 200 * np.eye(len(here), dtype=np.int64)
        by_image[f"image {index:03d}"] = matrix
    return by_image


def collected(by_image: dict[str, np.ndarray]) -> CountTable:
    counts = ImageCounts(LABELS, CountTable)
    for image, matrix in by_image.items():
        counts.add(image, matrix)
    return counts.table()


def test_table_holds_what_was_added_in_the_order_of_the_ids() -> None:
    by_image = matrices(0)
    odd, even = ImageCounts(LABELS, CountTable), ImageCounts(LABELS, CountTable)
    for index, (image, matrix) in enumerate(reversed(by_image.items())):
        (odd if index % 2 else even).add(image, matrix)
    odd.merge(even)
    table = odd.table()
    assert table.ids == tuple(by_image)
    for image, matrix in by_image.items():
        np.testing.assert_array_equal(table.of([image]).total(), matrix)
    np.testing.assert_array_equal(table.total(), sum(by_image.values()))
    assert len(table.cell) < 0.3 * LABELS**2 * len(by_image)
    some = list(by_image)[2:5]
    np.testing.assert_array_equal(table.of(some).total(), sum(by_image[i] for i in some))
    with pytest.raises(ValueError, match="'image 000' was counted twice"):
        odd.merge(odd if "image 000" in odd._cells else even)
    with pytest.raises(ValueError, match="twice"):
        odd.add("image 004", by_image["image 004"])


def test_draws_equal_a_loop_over_images() -> None:
    """The reference adds up matrices image by image, draw by draw."""
    first, second = matrices(1), matrices(2)
    weights = draw(np.random.default_rng(11), len(first), 40)
    assert (weights.sum(axis=1) == len(first)).all()
    expected = []
    for run in (first, second):
        for row in weights:
            total = np.zeros((LABELS, LABELS), np.int64)
            for times, matrix in zip(row, run.values(), strict=True):
                for _ in range(times):
                    total += matrix
            expected.append(metrics_of(total).miou)
    assert (weights[:, 3] == 0).any()  # some draws lack the rare label: their mean is over four
    tables = [collected(first), collected(second)]
    for block in (64, 7):
        given = resampled(tables, resamples=40, seed=11, block=block)
        np.testing.assert_allclose(given.ravel(), expected, rtol=1e-12)


def test_interval_is_percentiles_of_the_draws() -> None:
    table = collected(matrices(3, images=40))
    draws = np.sort(resampled([table], resamples=401, seed=5)[0])
    actual = interval(table, resamples=401, seed=5)
    assert (actual.low, actual.high) == (draws[10], draws[390])  # 2.5 and 97.5 % of 400 steps
    assert actual.low < metrics_of(table.total()).miou < actual.high
    assert actual == interval(table, resamples=401, seed=5)
    assert actual != interval(table, resamples=401, seed=6)
    assert interval(table, resamples=0) is None
    assert interval(table.of(["image 000"])) is None


def test_interval_narrows_with_images() -> None:
    few, many = (interval(collected(matrices(4, images=n, rare=False))) for n in (20, 500))
    assert 3 < (few.high - few.low) / (many.high - many.low) < 10  # about the root of 25


def test_a_paired_difference_is_narrower_than_its_runs() -> None:
    """Every image a little worse in the same way: sure, though the intervals overlap widely."""
    better = matrices(5, images=60, rare=False)
    worse = {}
    for image, matrix in better.items():
        moved = matrix.copy()
        moved[0, 0], moved[0, 1] = matrix[0, 0] - 5, matrix[0, 1] + 5
        worse[image] = moved
    first, second = collected(better), collected(worse)
    actual = difference(first, second)
    expected = metrics_of(first.total()).miou - metrics_of(second.total()).miou
    assert actual.value == pytest.approx(expected)
    assert 0 < actual.interval.low < actual.mean < actual.interval.high
    assert actual.above == 1.0
    first_interval, second_interval = interval(first), interval(second)
    assert second_interval.high > first_interval.low
    assert actual.interval.high - actual.interval.low < 0.5 * (
        first_interval.high - first_interval.low
    )
    back = difference(second, first)
    assert back.value == -actual.value
    assert (back.interval.low, back.above) == (pytest.approx(-actual.interval.high), 0.0)
    same = difference(first, first)
    assert (same.value, same.interval.low, same.interval.high, same.above) == (0, 0, 0, 0)


def test_the_mean_may_run_over_some_labels() -> None:
    """As `Sweep.curve` has it: the others count in the confusion, not in the mean."""
    by_image = [matrices(seed, images=30) for seed in (3, 4)]
    tables, among = [collected(images) for images in by_image], [0, 2]
    weights = draw(np.random.default_rng(0), 30, 20)
    draws = resampled(tables, among=among, resamples=20, block=20)
    for run, images in enumerate(by_image):
        for index, row in enumerate(weights):
            total = sum(n * m for n, m in zip(row, images.values(), strict=True))
            expected = metrics_of(total).iou[among].mean()
            assert draws[run, index] == pytest.approx(expected)
    values = [metrics_of(table.total()).iou[among].mean() for table in tables]
    assert [mean_iou(table, among=among) for table in tables] == pytest.approx(values)
    assert difference(*tables, among=among).value == pytest.approx(values[0] - values[1])
    assert difference(*tables, among=among).value != difference(*tables).value


def test_a_difference_needs_the_same_images() -> None:
    by_image = matrices(6)
    first = collected(by_image)
    renamed = collected({f"{image}b": matrix for image, matrix in by_image.items()})
    for other in (renamed, first.of(first.ids[1:])):
        with pytest.raises(ValueError, match="different images"):
            difference(first, other)


def test_without_truth_there_is_no_interval() -> None:
    nothing = collected({f"image {n}": np.zeros((LABELS, LABELS), np.int64) for n in range(3)})
    assert interval(nothing) is None


def test_counts_survive_the_disk_and_damage_is_reported(tmp_path: Path) -> None:
    tables = {"single": collected(matrices(7)), "multi": collected(matrices(8))}
    rows = {name: RowCounts(table) for name, table in tables.items()}
    tags = {f"image {n:03d}": tuple(range(n % 3)) for n in range(9)}
    path = tmp_path / "counts.h5"
    sha256 = write_counts(path, rows, PROVENANCE, tags)
    assert read_tags(path, sha256) == tags
    assert read_boundary(path, "single", sha256) is None
    for row, table in tables.items():
        back = read_counts(path, row, sha256)
        assert (back.ids, back.labels) == (table.ids, LABELS)
        np.testing.assert_array_equal(back.cell, table.cell)
        np.testing.assert_array_equal(back.total(), table.total())
    assert write_counts(tmp_path / "again.h5", rows, PROVENANCE, tags) == sha256
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"counts\.h5: has the sha256 .* score again"):
        read_counts(path, "single", sha256)
    path.unlink()
    with pytest.raises(ArtifactError, match="no such counts per image"):
        read_counts(path, "single", sha256)


def test_every_product_stores_the_counts_of_its_images(run: Run, tmp_path: Path) -> None:
    labels = {i: np.where(truth == 255, 0, truth) for i, truth in run.truth.items()}
    rolled = {i: np.roll(label, 2, axis=1) for i, label in labels.items()}
    masks = {i: {"label": rolled[i], "train": rolled[i]} for i in labels}
    maps = {i: {"single": labels[i], "multi_crf": rolled[i]} for i in labels}
    written = {name: tmp_path / f"{name}.train.json" for name in ("cam", "masks", "pred", "blob")}
    run.score("cam", run.cam_shards(), written["cam"])
    run.score("masks", [run.write("masks", "masks", masks)], written["masks"])
    run.score("segmenter", [run.write("pred", "predictions", maps)], written["pred"])
    run.score("blob", [], written["blob"])
    assert image_counts_path(written["cam"]).name == "cam.train.images.h5"
    for path in written.values():
        for record in read_records([path]):
            if record.at_best_threshold:
                assert (record.image_counts, record.miou_low, record.resamples) == (None, None, 0)
                with pytest.raises(ArtifactError, match="threshold was chosen on the truth"):
                    read_image_counts(record, path)
                continue
            table = read_image_counts(record, path)
            assert table.ids == tuple(sorted(sample.id for sample in run.samples))
            np.testing.assert_array_equal(table.total(), record.confusion)
            ends = interval(table)
            assert (record.miou_low, record.miou_high) == (ends.low, ends.high)
            assert record.resamples == 1000
            assert ends.low <= record.miou <= ends.high
