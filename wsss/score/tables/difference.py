"""Two runs on the same images: the difference of their mIoU, with an interval over images."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsss.artifacts.atomic import write_text
from wsss.artifacts.errors import ArtifactError
from wsss.score.image_counts_file import counts_of
from wsss.score.metrics.bootstrap import RESAMPLES, Difference, difference
from wsss.score.metrics.image_counts import CountTable
from wsss.score.product import name_some
from wsss.score.record import Record, read_records
from wsss.score.tables.rows import percent, product_of, protocol_of, row_name


@dataclass(frozen=True)
class Pair:
    """Two records of the same kind, and what lies between them."""

    one: Record
    other: Record
    found: Difference


def differences(one: Path, other: Path, *, resamples: int = RESAMPLES) -> list[Pair]:
    """Compare the records of two files that have counts of each image.

    Files with one such record each are compared whatever these are; otherwise records of the same
    product, split and protocol.

    Args:
        one: JSON file of the score stage.
        other: another one, scored on the same images against the same truth.
        resamples: draws of the images.

    Raises:
        ArtifactError: a file or its counts are missing, or no record of the one has a counterpart
            in the other.
        ValueError: the records were scored on different images, labels or truths.
    """
    firsts, seconds = _countable(one), _countable(other)
    if len(firsts) == len(seconds) == 1:
        matched = [(firsts[0], seconds[0])]
    else:
        by_kind = {_kind(record): record for record in seconds}
        matched = [(r, by_kind[_kind(r)]) for r in firsts if _kind(r) in by_kind]
    if not matched:
        raise ArtifactError(
            f"{one} has {_names(firsts)}, {other} has {_names(seconds)}: nothing to compare; "
            "pass files of the same product and split"
        )
    pairs = []
    for first, second in matched:
        tables = counts_of(first, one), counts_of(second, other)
        where = f"{one} and {other}: {row_name(first)}"
        check_comparable(*tables, list(first.iou), list(second.iou), where)
        pairs.append(Pair(first, second, difference(*tables, resamples=resamples)))
    return pairs


def check_comparable(
    one: CountTable, other: CountTable, names: list[str], other_names: list[str], where: str
) -> None:
    """Refuse runs whose numbers do not stand for the same pixels.

    Raises:
        ValueError: the images, the labels, or the pixels of a label in an image differ.
    """
    apart = sorted(set(one.ids) ^ set(other.ids))
    if apart:
        raise ValueError(
            f"{where}: scored on different images, {len(one.ids)} and {len(other.ids)}; only one "
            f"has {name_some(apart)}: score both on the same list"
        )
    if names != other_names:
        raise ValueError(f"{where}: scored with different labels; score both with the same classes")
    true = [table.sums()[table.labels : 2 * table.labels].toarray() for table in (one, other)]
    wrong = np.flatnonzero((true[0] != true[1]).any(axis=0))
    if wrong.size:
        raise ValueError(
            f"{where}: scored against different truths: the pixels of the labels differ in "
            f"{name_some([one.ids[place] for place in wrong])}; score both against the same masks"
        )


def write_differences(pairs: list[Pair], path: Path) -> None:
    """Write a CSV in full precision, a row a pair."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        (
            *("one", "other", "row", "other_row", "split", "images", "miou", "other_miou"),
            *("difference", "mean_of_draws", "low", "high", "share_above", "resamples"),
        )
    )
    for pair in pairs:
        one, other, found = pair.one, pair.other, pair.found
        ends = (found.interval.low, found.interval.high, found.above)
        writer.writerow(
            (
                *(one.run, other.run, row_name(one), row_name(other), one.split, found.images),
                *(one.miou, other.miou, found.value, found.mean, *ends, found.resamples),
            )
        )
    write_text(path, buffer.getvalue())


def sentence(pair: Pair) -> str:
    """``WeCLIP prediction, val, 80 images: 45.1 - 44.0 = +1.1 (95 %: -0.3 … +2.4)``."""
    one, other, found = pair.one, pair.other, pair.found
    first, second = row_name(one), row_name(other)
    name = first if first == second else f"{first} - {second}"
    low, high = found.interval.low, found.interval.high
    return (
        f"{name}, {one.split}, {found.images} images: {percent(one.miou)} - {percent(other.miou)} "
        f"= {100 * found.value:+.1f} (95 %: {100 * low:+.1f} … {100 * high:+.1f}; above 0 in "
        f"{100 * found.above:.0f} % of the draws)"
    )


def _countable(path: Path) -> list[Record]:
    records = read_records([path])
    found = [record for record in records if record.image_counts is not None]
    if not found:
        counts_of(records[0], path)  # says why there are none
    return found


def _kind(record: Record) -> tuple[str, ...]:
    return product_of(record), record.split, protocol_of(record)


def _names(records: list[Record]) -> str:
    return ", ".join(f"{row_name(record)!r} of {record.split}" for record in records)
