"""Two runs on the same images."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wsss.artifacts.errors import ArtifactError
from wsss.score.record import Record, read_records, write_records
from wsss.score.tables.difference import differences, sentence, write_differences

from ..conftest import Run


def predicted(
    run: Run, name: str, shift: int, names: tuple[str, ...] = ("single", "multi")
) -> Path:
    """Scores of predictions that are the truth moved to the side; `multi` is off by one more."""
    maps = {
        s.id: {
            protocol: np.roll(np.where(run.truth[s.id] == 255, 0, run.truth[s.id]), n, axis=1)
            for n, protocol in enumerate(names, start=shift)
        }
        for s in run.samples
    }
    out = run.folder / f"{name}.json"
    shard = run.write(f"{name}-shard", "predictions", maps)
    run.score("segmenter", [shard], out)
    return out


def test_records_are_paired_by_what_was_scored(run: Run) -> None:
    first, second = predicted(run, "one", 1), predicted(run, "other", 4)
    pairs = differences(first, second, resamples=200)
    assert [pair.first.protocol for pair in pairs] == ["single", "multi"]
    for pair in pairs:
        assert pair.difference.value == pytest.approx(pair.first.miou - pair.second.miou)
        assert pair.difference.value > 0
        assert pair.difference.images == len(run.samples)
    assert sentence(pairs[0]).startswith("segmenter, train, 6 images: ")
    assert sentence(pairs[0]).endswith("; resampled images, one training of each run)")
    out = run.folder / "differences.csv"
    write_differences(pairs, out)
    rows = list(csv.DictReader(out.open()))
    assert [float(row["difference"]) for row in rows] == [pair.difference.value for pair in pairs]
    assert {row["resamples"] for row in rows} == {"200"}
    covers = {row["interval_covers"] for row in rows}
    assert covers == {"resampled images, one training of each run"}


def test_single_records_of_any_product_are_compared(run: Run) -> None:
    """The row at the best threshold has no counts of images, so it is no candidate."""
    cams, predictions = run.folder / "cams.json", predicted(run, "one", 1, ("single",))
    run.score("cam", run.cam_shards(), cams)
    (pair,) = differences(cams, predictions)
    assert (pair.first.product, pair.second.product) == ("cam", "segmenter")
    assert sentence(pair).startswith("CAM - segmenter, train")


def test_records_without_a_common_product_are_refused(run: Run) -> None:
    first, second = predicted(run, "one", 1), predicted(run, "b", 1, ("single_crf", "multi_crf"))
    with pytest.raises(ArtifactError, match=r"'segmenter' of train.*'segmenter, CRF'.*nothing to"):
        differences(first, second)


def edited(path: Path, change: Callable[[Record], Record]) -> Path:
    write_records(path, [change(record) for record in read_records([path])])
    return path


def test_different_images_are_refused(run: Run, make_run: Callable[..., Run]) -> None:
    first = predicted(run, "one", 1)
    fewer = make_run(5)
    with pytest.raises(ValueError, match=r"different images, 6 and 5; only one has 1 images"):
        differences(first, predicted(fewer, "other", 1))


def test_another_class_mean_is_refused(run: Run) -> None:
    first, second = predicted(run, "one", 1), predicted(run, "other", 4)
    edited(second, lambda record: record.model_copy(update={"class_mean": "truth"}))
    with pytest.raises(ValueError, match=r"score.class_mean: union and truth.; score both with"):
        differences(first, second)


def test_another_truth_is_refused(run: Run, make_run: Callable[..., Run]) -> None:
    from ..conftest import save_mask

    first = predicted(run, "one", 1)
    changed = run.truth["image3"].copy()
    changed[:4, :4] = 2
    save_mask(run.folder / "data/SegmentationClass/image3.png", changed)
    with pytest.raises(ValueError, match=r"different truths.*1 images .'image3'"):
        differences(first, predicted(run, "other", 1))


def test_records_without_counts_are_refused(run: Run) -> None:
    first, second = predicted(run, "one", 1), predicted(run, "other", 2)
    old = {"image_counts": None, "miou_low": None, "miou_high": None, "resamples": 0}
    edited(second, lambda record: record.model_copy(update=old))
    with pytest.raises(ArtifactError, match="older version: score again"):
        differences(first, second)
