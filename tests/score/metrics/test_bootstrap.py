"""Counts of each image, and intervals over images against a loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wsss.artifacts.errors import ArtifactError
from wsss.score.image_counts_file import image_counts_path, read_image_counts
from wsss.score.metrics.bootstrap import difference, draw, interval, resampled
from wsss.score.metrics.confusion import metrics_of
from wsss.score.metrics.image_counts import CountTable, ImageCounts, read_counts, write_counts
from wsss.score.record import read_records

from ..conftest import PROVENANCE, Run

LABELS = 5


def matrices(seed: int, images: int = 9, *, rare: bool = True) -> dict[str, np.ndarray]:
    """Few labels an image; a rare one is in a single image, so that many draws lack it."""
    rng = np.random.default_rng(seed)
    found = {}
    for number in range(images):
        matrix = np.zeros((LABELS, LABELS), np.int64)
        here = [0, 1 + number % 3] + [4] * (rare and number == 3)
        block = rng.integers(1, 90, (len(here), len(here)))
        matrix[np.ix_(here, here)] = block + 200 * np.eye(len(here), dtype=np.int64)
        found[f"image {number:03d}"] = matrix
    return found


def collected(found: dict[str, np.ndarray]) -> CountTable:
    counts = ImageCounts(LABELS)
    for image, matrix in found.items():
        counts.add(image, matrix)
    return counts.table()


def test_table_holds_what_was_added_in_the_order_of_the_ids() -> None:
    found = matrices(0)
    odd, even = ImageCounts(LABELS), ImageCounts(LABELS)
    for number, (image, matrix) in enumerate(reversed(found.items())):
        (odd if number % 2 else even).add(image, matrix)
    odd.merge(even)
    table = odd.table()
    assert table.ids == tuple(found)
    for image, matrix in found.items():
        np.testing.assert_array_equal(table.of([image]).total(), matrix)
    np.testing.assert_array_equal(table.total(), sum(found.values()))
    assert len(table.cell) < 0.3 * LABELS**2 * len(found)
    some = list(found)[2:5]
    np.testing.assert_array_equal(table.of(some).total(), sum(found[i] for i in some))
    with pytest.raises(ValueError, match="'image 000' was counted twice"):
        odd.merge(odd if "image 000" in odd._cells else even)
    with pytest.raises(ValueError, match="twice"):
        odd.add("image 004", found["image 004"])


def test_draws_equal_a_loop_over_images() -> None:
    """The reference adds up matrices image by image, draw by draw."""
    found, other = matrices(1), matrices(2)
    weights = draw(np.random.default_rng(11), len(found), 40)
    assert (weights.sum(axis=1) == len(found)).all()
    expected = []
    for run in (found, other):
        for row in weights:
            total = np.zeros((LABELS, LABELS), np.int64)
            for times, matrix in zip(row, run.values(), strict=True):
                for _ in range(times):
                    total += matrix
            expected.append(metrics_of(total).miou)
    assert (weights[:, 3] == 0).any()  # some draws lack the rare label: their mean is over four
    tables = [collected(found), collected(other)]
    for block in (64, 7):
        given = resampled(tables, resamples=40, seed=11, block=block)
        np.testing.assert_allclose(given.ravel(), expected, rtol=1e-12)


def test_interval_is_percentiles_of_the_draws() -> None:
    table = collected(matrices(3, images=40))
    draws = np.sort(resampled([table], resamples=401, seed=5)[0])
    found = interval(table, resamples=401, seed=5)
    assert found is not None
    assert (found.low, found.high) == (draws[10], draws[390])  # 2.5 and 97.5 % of 400 steps
    assert found.low < metrics_of(table.total()).miou < found.high
    assert found == interval(table, resamples=401, seed=5)
    assert found != interval(table, resamples=401, seed=6)
    assert interval(table, resamples=0) is None
    assert interval(table.of(["image 000"])) is None


def test_interval_narrows_with_images() -> None:
    few, many = (interval(collected(matrices(4, images=n, rare=False))) for n in (20, 500))
    assert few is not None
    assert many is not None
    assert 3 < (few.high - few.low) / (many.high - many.low) < 10  # about the root of 25


def test_a_paired_difference_is_narrower_than_its_runs() -> None:
    """Every image a little worse in the same way: sure, though the intervals overlap widely."""
    better = matrices(5, images=60, rare=False)
    worse = {}
    for image, matrix in better.items():
        moved = matrix.copy()
        moved[0, 0], moved[0, 1] = matrix[0, 0] - 5, matrix[0, 1] + 5
        worse[image] = moved
    one, other = collected(better), collected(worse)
    found = difference(one, other)
    expected = metrics_of(one.total()).miou - metrics_of(other.total()).miou
    assert found.value == pytest.approx(expected)
    assert 0 < found.interval.low < found.mean < found.interval.high
    assert found.above == 1.0
    own, second = interval(one), interval(other)
    assert own is not None
    assert second is not None
    assert second.high > own.low
    assert found.interval.high - found.interval.low < 0.5 * (own.high - own.low)
    back = difference(other, one)
    assert back.value == -found.value
    assert (back.interval.low, back.above) == (pytest.approx(-found.interval.high), 0.0)
    same = difference(one, one)
    assert (same.value, same.interval.low, same.interval.high, same.above) == (0, 0, 0, 0)


def test_different_images_have_no_difference() -> None:
    found = matrices(6)
    one = collected(found)
    renamed = collected({f"{image}b": matrix for image, matrix in found.items()})
    for other in (renamed, one.of(one.ids[1:])):
        with pytest.raises(ValueError, match="different images"):
            difference(one, other)


def test_nothing_with_a_truth_has_no_interval() -> None:
    nothing = collected({f"image {n}": np.zeros((LABELS, LABELS), np.int64) for n in range(3)})
    assert interval(nothing) is None


def test_counts_survive_the_disk_and_damage_is_told(tmp_path: Path) -> None:
    tables = {"single": collected(matrices(7)), "multi": collected(matrices(8))}
    path = tmp_path / "counts.h5"
    sha256 = write_counts(path, tables, PROVENANCE)
    for row, table in tables.items():
        back = read_counts(path, row, sha256)
        assert (back.ids, back.labels) == (table.ids, LABELS)
        np.testing.assert_array_equal(back.cell, table.cell)
        np.testing.assert_array_equal(back.total(), table.total())
    assert write_counts(tmp_path / "again.h5", tables, PROVENANCE) == sha256
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"counts\.h5: has the sha256 .* score again"):
        read_counts(path, "single", sha256)
    path.unlink()
    with pytest.raises(ArtifactError, match="no such counts per image"):
        read_counts(path, "single", sha256)


def test_every_product_keeps_the_counts_of_its_images(run: Run, tmp_path: Path) -> None:
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
            found = interval(table)
            assert found is not None
            assert (record.miou_low, record.miou_high) == (found.low, found.high)
            assert record.resamples == 1000
            assert record.miou is not None
            assert found.low <= record.miou <= found.high
