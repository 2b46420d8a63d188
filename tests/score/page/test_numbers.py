"""Numbers of the result page against loops over images and labels."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wsss.score.image_counts_file import read_scored
from wsss.score.metrics.bootstrap import class_differences, difference
from wsss.score.metrics.confusion import Confusion
from wsss.score.metrics.image_counts import CountTable
from wsss.score.metrics.threshold_sweep import THRESHOLDS, Sweep
from wsss.score.page.numbers import SIZES, image_ious, iou_by_size, rows_of
from wsss.score.page.palette import hex_colours, picture_palette

from ..conftest import Run

LABELS = 5


@pytest.fixture
def maps() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(3)
    images = {}
    for index in range(12):
        truth = np.kron(rng.integers(0, LABELS, (3, 4)), np.ones((4, 4), int)).astype(np.uint8)
        truth[rng.random(truth.shape) < 0.1] = 255
        predicted = np.where(rng.random(truth.shape) < 0.7, truth, rng.integers(0, LABELS))
        predicted[predicted == 255] = 0
        images[f"i{index}"] = truth, predicted.astype(np.uint8)
    return images


def table_of(maps: dict[str, tuple[np.ndarray, np.ndarray]]) -> CountTable:
    confusion = Confusion(LABELS)
    for image, (truth, predicted) in maps.items():
        confusion.add(truth, predicted, image)
    return confusion.image_counts.confusion


def test_iou_of_images_and_of_sizes(maps: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    table = table_of(maps)
    ious = image_ious(table)
    groups: list[list[float]] = [[] for _ in range(len(SIZES) + 1)]
    for column, image in enumerate(table.ids):
        truth, predicted = maps[image]
        valid = truth != 255
        for label in range(LABELS):
            true, hit = (truth == label) & valid, (predicted == label) & valid
            union = (true | hit).sum()
            iou = (true & hit).sum() / union if union else np.nan
            np.testing.assert_allclose(ious[label, column], iou)
            if label and true.any():
                share = true.sum() / valid.sum()
                groups[sum(share >= bound for bound in SIZES)].append(iou)
    expected = [(len(group), np.mean(group) if group else None) for group in groups]
    assert [entry["objects"] for entry in iou_by_size(table)] == [count for count, _ in expected]
    for entry, (_, mean) in zip(iou_by_size(table), expected, strict=True):
        assert entry["iou"] == (None if mean is None else pytest.approx(mean))


def test_of_no_images_there_are_no_sizes() -> None:
    assert iou_by_size(table_of({})) == [{"objects": 0, "iou": None}] * (len(SIZES) + 1)


def test_sizes_of_a_million_images_fit_into_memory() -> None:
    """The dense counts of 81 labels took 4 KB an image."""
    images, labels = 20_000, 81
    table = CountTable(
        labels=labels,
        ids=tuple(f"{index:06d}" for index in range(images)),
        bounds=np.arange(0, 4 * images + 1, 4),
        cell=np.tile(np.array([0, 1, 82, 83], np.uint16), images),
        count=np.full(4 * images, 7),
    )
    tracemalloc.start()
    sizes = iou_by_size(table)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sizes[-1] == {"objects": images, "iou": pytest.approx(1 / 3)}
    assert peak < 2000 * images


def test_differences_of_classes(maps: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    first = table_of(maps)
    second = table_of(
        {i: (t, np.where(t == 2, 0, p).astype(np.uint8)) for i, (t, p) in maps.items()}
    )
    differences = class_differences(first, second)
    mean = difference(first, second)
    assert differences[0] == (pytest.approx(mean.value), mean.interval)
    value, interval = differences[3] or (0, None)
    assert value > 0
    assert interval is not None
    assert interval.low > 0
    same = class_differences(first, first)
    assert all(entry is None or entry[0] == 0 for entry in same)


def test_reliability_counts_each_foreground_pixel() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, (20, 30)).astype(np.uint8)
    truth[0] = 255
    largest = rng.random((20, 30)).astype(np.float32)
    winner = rng.integers(0, 2, (20, 30)).astype(np.uint8)
    sweep = Sweep(4)
    sweep.add(truth, largest, winner, [0, 2])
    expected = np.zeros((100, 2), int)
    for row in range(1, 20):
        for column in range(30):
            step = int((largest[row, column] > THRESHOLDS).sum()) - 1
            if step >= 0:
                expected[step, 0] += 1
                expected[step, 1] += truth[row, column] == [0, 2][winner[row, column]] + 1
    assert sweep.reliability() == [tuple(entry) for entry in expected.tolist()]
    assert len(sweep.curve()) == 100


def test_rows_have_the_counts_of_each_image(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run()
    out = tmp_path / "scores" / "cam.train.json"
    out.parent.mkdir()
    run.score("cam", run.cam_shards(), out)
    ids = [sample.id for sample in run.samples]
    rows = rows_of(read_scored([out]), ids)
    assert [row["key"] for row in rows] == ["cam-single", "cam-single-best"]
    assert rows[0]["layer"] == "cam"
    assert len(rows[0]["image_iou"]) == len(rows[0]["cells"]) == len(ids)
    total = sum(sum(cells[1::2]) for cells in rows[0]["cells"])
    assert total == sum(map(sum, rows[0]["confusion"]))
    assert len(rows[0]["curve"]) == 100
    assert sum(pixels for pixels, _ in rows[0]["reliability"]) > 0
    assert "cells" not in rows[1]


def test_colours_differ_and_none_is_grey() -> None:
    palette = picture_palette(81)
    colours = hex_colours(palette, 81)
    assert len(set(colours)) == 81
    assert (np.ptp(palette[1:81].astype(int), axis=1) > 40).all()
    assert not palette[255].any()
