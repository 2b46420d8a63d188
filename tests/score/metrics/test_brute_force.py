"""Scores of random label maps against loops over pixels, which share no code with the package."""

import csv
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.builders import write_manifest_folder
from wsss.score.image_counts_file import read_scored
from wsss.score.metrics.bootstrap import interval, resampled, seeds_interval
from wsss.score.metrics.confusion import Confusion
from wsss.score.metrics.cooccurrence import cooccurrences
from wsss.score.metrics.image_counts import CountTable, ImageCounts
from wsss.score.record import Record
from wsss.score.tables.classes import make_class_tables

from ..conftest import CLASSES, Run, save_mask

NAMES = ("background", "cat", "boat", "tree")
CAT, BOAT, TREE = 1, 2, 3
Maps = dict[str, np.ndarray]


def blocks(rng: np.random.Generator, shape: tuple[int, int], labels: list[int]) -> np.ndarray:
    """Rectangles of the labels, and single pixels of them."""
    labelled = np.zeros(shape, np.uint8)
    for label in labels:
        top, left = rng.integers(0, shape[0] - 4), rng.integers(0, shape[1] - 4)
        labelled[top : top + rng.integers(1, 14), left : left + rng.integers(1, 14)] = label
    if labels:
        labelled[rng.random(shape) < 0.01] = labels[0]
    return labelled


@pytest.fixture
def random_run(make_run: Callable[..., Run]) -> tuple[Run, Maps]:
    """Random maps and predictions; no truth has a tree, one image is void, one has no object."""
    run, rng, predictions = make_run(9), np.random.default_rng(7), {}
    samples = []
    for index, sample in enumerate(run.samples):
        shape = (sample.height, sample.width)
        objects = [[CAT], [BOAT], [CAT, BOAT]][index % 3] if index else []
        truth = blocks(rng, shape, objects)
        void = rng.random(shape) < 0.03
        void[rng.integers(0, 15) :][:3] = True
        truth[void | (index == 1)] = 255
        save_mask(Path(run.config.data.root) / f"SegmentationClass/{sample.id}.png", truth)
        run.truth[sample.id] = truth
        visible = np.where(truth == 255, 0, truth)
        moved = np.roll(visible, rng.integers(0, 4, 2), axis=(0, 1))
        noise = rng.integers(0, 4, shape)
        mixed = np.where(rng.random(shape) < 0.5, blocks(rng, shape, [TREE, CAT]), noise)
        predictions[sample.id] = np.where(rng.random(shape) < 0.9, moved, mixed).astype(np.uint8)
        samples.append(replace(sample, tags=tuple(label - 1 for label in objects)))
    run.samples[:] = samples
    write_manifest_folder(run.manifest_dir, CLASSES, samples)
    return run, predictions


def pixels(run: Run, predictions: Maps, images: list[str]) -> Iterator[tuple[int, int]]:
    """True and predicted label of every pixel that has a truth."""
    for image in images:
        for true, predicted in zip(
            run.truth[image].ravel().tolist(), predictions[image].ravel().tolist(), strict=True
        ):
            if true != 255:
                yield true, predicted


def shares(
    run: Run, predictions: Maps, images: list[str], label: int
) -> tuple[float, float, float] | None:
    """IoU, false positives and false negatives of a label; None where it does not occur."""
    both = wrong = missed = 0
    for true, predicted in pixels(run, predictions, images):
        both += true == predicted == label
        wrong += predicted == label != true
        missed += true == label != predicted
    union = both + wrong + missed
    return (both / union, wrong / union, missed / union) if union else None


def region(labelled: np.ndarray, label: int, distance: int) -> set[tuple[int, int]]:
    """Pixels of a label from which a king reaches another label, or leaves the map."""
    height, width = labelled.shape
    steps = range(-distance, distance + 1)
    near = set()
    for y, x in np.argwhere(labelled == label).tolist():
        for dy, dx in itertools.product(steps, steps):
            inside = 0 <= y + dy < height and 0 <= x + dx < width
            if not inside or labelled[y + dy, x + dx] != label:
                near.add((y, x))
                break
    return near


def boundary_iou(run: Run, predictions: Maps, label: int, ratio: float) -> float | None:
    both = either = 0
    for image, truth in run.truth.items():
        distance = max(1, round(ratio * (truth.shape[0] ** 2 + truth.shape[1] ** 2) ** 0.5))
        visible = predictions[image].copy()
        visible[truth == 255] = 255
        true, predicted = (region(m, label, distance) for m in (truth, visible))
        both, either = both + len(true & predicted), either + len(true | predicted)
    return both / either if either else None


def mean(values: list[float | None], labels: list[int]) -> float:
    some = [values[k] for k in labels if values[k] is not None]
    return sum(some) / len(some)


def scored(run: Run, predictions: Maps, **score: object) -> tuple[Record, Path]:
    shard = run.write(
        "prediction", "predictions", {i: {"single": m} for i, m in predictions.items()}
    )
    settings = run.config.score.model_copy(update=score)
    out = run.folder / "p.json"
    config = run.config.model_copy(update={"score": settings})
    return run.score("segmenter", [shard], out, config=config)[0], out


@pytest.mark.parametrize(
    ("rule", "labels"), [("union", [0, CAT, BOAT, TREE]), ("truth", [0, 1, 2])]
)
def test_every_number_of_a_class(
    random_run: tuple[Run, Maps], rule: str, labels: list[int]
) -> None:
    run, predictions = random_run
    record, _ = scored(run, predictions, class_mean=rule, boundary_ratio=0.07)
    images = list(run.truth)
    expected = [shares(run, predictions, images, k) for k in range(4)]
    near = [boundary_iou(run, predictions, k, 0.07) for k in range(4)]
    assert expected[TREE] == (0, 1, 0)  # predicted, but nowhere true: only one rule counts it
    for k, name in enumerate(NAMES):
        given = [record.iou, record.false_positive_by_class, record.false_negative_by_class]
        assert [part[name] for part in given] == pytest.approx(expected[k], abs=1e-12)
        assert sum(part[name] for part in given) == pytest.approx(1)
        assert record.boundary_iou[name] == pytest.approx(near[k], abs=1e-12)
    columns = [[row[n] for row in expected] for n in range(3)]
    means = [mean(column, labels) for column in (*columns, near)]
    assert means == pytest.approx(
        [record.miou, record.false_positive, record.false_negative, record.boundary_miou]
    )
    assert (record.class_mean, record.boundary_ratio) == (rule, 0.07)


def test_the_width_of_the_region_is_two_percent_of_the_diagonal() -> None:
    """On an image of 300 x 400 pixels, an object of 100 x 100 has a frame of ten pixels."""
    truth, prediction = np.zeros((2, 300, 400), np.uint8)
    truth[100:200, 100:200] = prediction[110:190, 110:190] = 1
    confusion = Confusion(2, boundary_ratio=0.02)
    confusion.add(truth, prediction)
    frames = [100**2 - 80**2, 80**2 - 60**2]
    assert confusion.boundary.counts[:, 1].tolist() == [0, *frames]
    with pytest.raises(ValueError, match="of other rules"):
        confusion.merge(Confusion(2))
    with pytest.raises(ValueError, match="ignore band"):
        Confusion(2, boundary_ratio=0.02, ignore_band=True)


def test_predictions_without_a_truth_have_no_effect(random_run: tuple[Run, Maps]) -> None:
    run, predictions = random_run
    counts = [Confusion(4, boundary_ratio=0.05) for _ in range(3)]
    for image, truth in run.truth.items():
        void = truth == 255
        counts[0].add(truth, predictions[image])
        counts[1].add(truth, np.where(void, TREE, predictions[image]).astype(np.uint8))
        counts[2].add(truth, np.where(void, CAT, truth).astype(np.uint8))
    first, second, perfect = (c.boundary.counts for c in counts)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(perfect[0], perfect[1])
    np.testing.assert_array_equal(perfect[0], perfect[2])


def test_without_boundaries_nothing_else_changes(random_run: tuple[Run, Maps]) -> None:
    run, predictions = random_run
    full, _ = scored(run, predictions)
    bare, _ = scored(run, predictions, boundary_ratio=0.0)
    assert (bare.boundary_iou, bare.boundary_miou, bare.boundary_ratio) == ({}, None, 0)
    names = ("iou", "miou", "confusion", "miou_low", "miou_high", "false_positive", "precision")
    assert [getattr(bare, n) for n in names] == [getattr(full, n) for n in names]


def test_classes_that_occur_together(
    random_run: tuple[Run, Maps], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsss.score.metrics.cooccurrence.FEWEST_IMAGES", 1)
    run, predictions = random_run
    _, out = scored(run, predictions)
    tags = {sample.id: set(sample.tags) for sample in run.samples}
    make_class_tables(read_scored([out]), run.folder / "tables")
    with (run.folder / "tables/pairs.csv").open() as stream:
        lines = {(r["class"], r["images_tagged"]): r for r in csv.DictReader(stream)}
    sets = {
        "alone": lambda k: [i for i, t in tags.items() if t == {k - 1}],
        "with others": lambda k: [i for i, t in tags.items() if {k - 1} < t],
        "with partner": lambda k: [i for i, t in tags.items() if {0, 1} <= t],
    }
    for (label, name), what in itertools.product(((CAT, "cat"), (BOAT, "boat")), sets):
        images, line = sets[what](label), lines[name, what]
        assert len(images) == int(line["images"]) > 0
        assert float(line["iou"]) == pytest.approx(shares(run, predictions, images, label)[0])
        if what == "with partner":
            other = CAT + BOAT - label
            assert line["partner"] == NAMES[other]
            went = [p for t, p in pixels(run, predictions, images) if t == label]
            assert float(line["predicted_as_partner"]) == pytest.approx(
                went.count(other) / len(went)
            )
    assert not any(name == "tree" for name, _ in lines)
    markdown = (run.folder / "tables/pairs.md").read_text()
    assert (
        f"{100 * float(lines['cat', 'alone']['iou']):.1f} ({lines['cat', 'alone']['images']})"
        in markdown
    )


def table_of(rng: np.random.Generator, quality: float, images: int = 12) -> CountTable:
    counts = ImageCounts(3, CountTable)
    for index in range(images):
        matrix = rng.integers(0, 40, (3, 3)) + np.diag(rng.integers(0, round(200 * quality), 3))
        counts.add(f"image {index:02d}", matrix)
    return counts.table()


def matrices(table: CountTable) -> list[np.ndarray]:
    return [table.of([image]).total() for image in table.ids]


def miou(matrix: np.ndarray) -> float:
    hits = [matrix[k, k] / (matrix[k].sum() + matrix[:, k].sum() - matrix[k, k]) for k in range(3)]
    return float(np.mean(hits))


def test_the_interval_of_seeds_equals_a_simulation() -> None:
    """Other draws of the same kind: S - 1 of the seeds, and the same images for all of them."""
    rng = np.random.default_rng(3)
    tables = [table_of(rng, quality) for quality in (1.0, 1.2, 0.7)]
    runs = [matrices(table) for table in tables]
    draws = []
    for _ in range(4000):
        images, seeds = rng.integers(12, size=12), rng.integers(3, size=2)
        draws.append(np.mean([miou(sum(runs[s][i] for i in images)) for s in seeds]))
    ends = seeds_interval(tables, resamples=4000)
    low, high = np.quantile(draws, [0.025, 0.975])
    assert (ends.low, ends.high) == pytest.approx((low, high), abs=0.08 * (high - low))
    single = interval(tables[0], resamples=4000)
    assert ends.high - ends.low > 1.3 * (single.high - single.low)


def test_seeds_alone_have_the_variance_of_their_mean() -> None:
    """All images alike: only the seeds differ. The mean of S values has the variance s²/S."""
    runs = []
    for hit in (50, 70, 120):
        counts = ImageCounts(2, CountTable)
        for index in range(4):
            counts.add(str(index), np.array([[hit, 30], [20, hit]]))
        runs.append(counts.table())
    ends = seeds_interval(runs, resamples=500)
    values = [resampled([run], resamples=1)[0, 0] for run in runs]
    pairs = [(a + b) / 2 for a in values for b in values]
    assert np.var(pairs) == pytest.approx(np.var(values, ddof=1) / 3)
    assert (ends.low, ends.high) == pytest.approx((min(values), max(values)))
    same = seeds_interval([runs[0]] * 3)
    assert same == interval(runs[0])
    with pytest.raises(ValueError, match="1 seeds; expected two"):
        seeds_interval(runs[:1])
    assert seeds_interval(runs, resamples=0) is None


def test_a_draw_without_a_label_in_the_truth_leaves_it_out() -> None:
    """By the rule of the truth; the label is predicted in every image."""
    counts = ImageCounts(2, CountTable)
    counts.add("both", np.array([[50, 10], [5, 20]]))
    counts.add("one", np.array([[40, 8], [0, 0]]))
    tables = [counts.table()]
    for rule, without in (("union", (40 / 48) / 2), ("truth", 40 / 48)):
        draws = resampled(tables, class_mean=rule, resamples=64)[0]
        assert any(draw == pytest.approx(without) for draw in draws)


def test_partners_are_the_most_frequent() -> None:
    counts, tags = ImageCounts(9, CountTable), {}
    for index in range(40):
        image = f"image {index:02d}"
        counts.add(image, np.eye(9, dtype=np.int64))
        tags[image] = [0, *range(1, 1 + index % 8)]
    first = next(cooccurrences(counts.table(), tags))
    assert first.label == 1
    assert [(p.label, p.subset.images) for p in first.partners] == [
        (2, 35), (3, 30), (4, 25), (5, 20), (6, 15),
    ]  # fmt: skip
    assert (first.alone.images, first.together.images) == (5, 35)
    *_, last = cooccurrences(counts.table(), tags, partners=20)
    assert [p.label for p in last.partners] == [1, 2, 3, 4, 5, 6, 7]
    assert last.alone.images == 0
    assert np.isnan(last.alone.iou)
