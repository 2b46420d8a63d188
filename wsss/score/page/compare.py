"""Two runs side by side: the paired difference of each class, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wsss.score.image_counts_file import Scored
from wsss.score.metrics.bootstrap import class_differences
from wsss.score.tables.difference import comparable_counts
from wsss.score.tables.rows import row_name


def compared(first: Sequence[Scored], second: Sequence[Scored]) -> list[dict[str, Any]]:
    """The differences of the rows that both runs have.

    Args:
        first: the records of a run, each with its file.
        second: those of another run on the same images.

    Returns:
        For each row: split, title, and for the mean and each class (``value``, ``low``, ``high``)
        of the IoU of the first run minus that of the second; None where it is undefined.

    Raises:
        ValueError: the runs were scored on different images, labels or truths.
    """
    others = {_kind(entry): entry for entry in second}
    rows = []
    for entry in first:
        other = others.get(_kind(entry))
        record = entry.record
        if other is None or record.image_counts is None or other.record.image_counts is None:
            continue
        tables = comparable_counts(entry, other)
        differences = class_differences(*tables, class_mean=record.class_mean)
        rows.append(
            {
                "split": record.split,
                "title": row_name(record),
                "miou": [record.miou, other.record.miou],
                "differences": [
                    None if d is None else [d[0], d[1].low, d[1].high] for d in differences
                ],
            }
        )
    return rows


def _kind(entry: Scored) -> tuple[str, ...]:
    record = entry.record
    return record.product, record.split, record.protocol, str(record.at_best_threshold)
