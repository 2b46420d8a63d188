"""Two runs on the same images: the difference of their mIoU, with an interval.

The interval covers other images, and one training of each run: these two. Other seeds are not in it
(`wsss.score.metrics.bootstrap`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsss.artifacts.atomic import write_text
from wsss.artifacts.errors import ArtifactError
from wsss.data.counted import list_images
from wsss.score.image_counts_file import Scored, read_image_counts
from wsss.score.metrics.bootstrap import IMAGES_OF_PAIRS, RESAMPLES, Difference, difference
from wsss.score.metrics.image_counts import CountTable
from wsss.score.record import Record, read_records
from wsss.score.tables.rows import percent, row_name
from wsss.score.tables.write import csv_text


@dataclass(frozen=True)
class Pair:
    """Two records and the difference of their mIoU."""

    first: Record
    second: Record
    difference: Difference


def differences(first: Path, second: Path, *, resamples: int = RESAMPLES) -> list[Pair]:
    """Compare the records of two files that have counts per image.

    Files with one such record each are compared whatever they hold; otherwise records are matched
    by product, split and protocol.

    Args:
        first: JSON file of the score stage.
        second: another one, scored on the same images against the same truth.

    Raises:
        ArtifactError: a file or its counts are missing, or no record has a counterpart.
        ValueError: the records were scored on different images, labels or truths, or their mean IoU
            runs over different labels.
    """
    firsts, seconds = _countable(first), _countable(second)
    if len(firsts) == len(seconds) == 1:
        matched = [(firsts[0], seconds[0])]
    else:
        by_kind = {_kind(record): record for record in seconds}
        matched = [(r, by_kind[_kind(r)]) for r in firsts if _kind(r) in by_kind]
    if not matched:
        raise ArtifactError(
            f"{first} has {_names(firsts)}, {second} has {_names(seconds)}: nothing to compare; "
            "pass files of the same product and split"
        )
    pairs = []
    for record, other in matched:
        tables = comparable_counts(Scored(first, record), Scored(second, other))
        value = difference(*tables, class_mean=record.class_mean, resamples=resamples)
        pairs.append(Pair(record, other, value))
    return pairs


def comparable_counts(first: Scored, second: Scored) -> tuple[CountTable, CountTable]:
    """The counts per image of two records whose numbers stand for the same pixels and labels.

    Raises:
        ArtifactError: the counts of one are missing or damaged.
        ValueError: the records were scored on different images, labels or truths, or their mean IoU
            runs over different labels.
    """
    where = f"{first.file} and {second.file}: {row_name(first.record)}"
    if list(first.record.iou) != list(second.record.iou):
        raise ValueError(f"{where}: scored with different labels; score both with the same classes")
    means = [scored.record.class_mean for scored in (first, second)]
    if means[0] != means[1]:
        raise ValueError(
            f"{where}: the means run over different labels (score.class_mean: {means[0]} and "
            f"{means[1]}); score both with the same"
        )
    one, other = (read_image_counts(scored.record, scored.file) for scored in (first, second))
    if one.ids != other.ids and (unpaired := sorted(set(one.ids) ^ set(other.ids))):
        raise ValueError(
            f"{where}: scored on different images, {len(one.ids)} and {len(other.ids)}; only one "
            f"has {list_images(unpaired)}: score both on the same list"
        )
    true = [table.sums()[table.labels : 2 * table.labels] for table in (one, other)]
    wrong = np.unique((true[0] != true[1]).nonzero()[1])
    if wrong.size:
        raise ValueError(
            f"{where}: scored against different truths: the pixels of the labels differ in "
            f"{list_images([one.ids[i] for i in wrong])}; score both against the same masks"
        )
    return one, other


def write_differences(pairs: list[Pair], path: Path) -> None:
    """Write a CSV in full precision, a row per pair."""
    rows = []
    for pair in pairs:
        first, second, difference = pair.first, pair.second, pair.difference
        rows.append(
            {
                "one": first.run,
                "other": second.run,
                "row": row_name(first),
                "other_row": row_name(second),
                "split": first.split,
                "images": difference.images,
                "miou": first.miou,
                "other_miou": second.miou,
                "difference": difference.value,
                "mean_of_draws": difference.mean,
                "low": difference.interval.low,
                "high": difference.interval.high,
                "share_above": difference.above,
                "resamples": difference.resamples,
                "interval_covers": IMAGES_OF_PAIRS,
                "class_mean": first.class_mean,
            }
        )
    write_text(path, csv_text(rows))


def sentence(pair: Pair) -> str:
    """``WeCLIP prediction, val, 80 images: 45.1 - 44.0 = +1.1 (95 %: -0.3 … +2.4; above 0 in 85 %
    of the draws; resampled images, one training of each run)``."""
    first, second, difference = pair.first, pair.second, pair.difference
    names = dict.fromkeys([row_name(first), row_name(second)])
    low, high = difference.interval.low, difference.interval.high
    return (
        f"{' - '.join(names)}, {first.split}, {difference.images} images: "
        f"{percent(first.miou)} - {percent(second.miou)} = {100 * difference.value:+.1f} "
        f"(95 %: {100 * low:+.1f} … {100 * high:+.1f}; above 0 in "
        f"{100 * difference.above:.0f} % of the draws; {IMAGES_OF_PAIRS})"
    )


def _countable(path: Path) -> list[Record]:
    records = read_records([path])
    countable = [record for record in records if record.image_counts is not None]
    if not countable:
        read_image_counts(records[0], path)  # says why there are none
    return countable


def _kind(record: Record) -> tuple[str, ...]:
    return record.product, record.split, record.protocol


def _names(records: list[Record]) -> str:
    return ", ".join(f"{row_name(record)!r} of {record.split}" for record in records)
