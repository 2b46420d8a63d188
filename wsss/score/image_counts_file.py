"""What is kept beside the records of a product: counts of each image, and what follows from them.

The counts of ``scores/cam.train.json`` lie in ``scores/cam.train.images.h5``. They are written
first; the records name the file with its sha256, so that a file which is older or newer than its
records is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.provenance import Provenance
from wsss.score.metrics.bootstrap import Interval, interval
from wsss.score.metrics.counting import images_of
from wsss.score.metrics.image_counts import CountTable, ImageCounts, read_counts, write_counts
from wsss.score.metrics.parallel import Counts
from wsss.score.record import ImageCountsFile, Record
from wsss.score.tables.rows import row_name


@dataclass(frozen=True)
class Evidence:
    """What is known of a row beyond its sums."""

    file: ImageCountsFile
    interval: Interval | None


def counts_path(records: Path) -> Path:
    """The file of the counts of each image that belongs to a file of records."""
    return records.with_name(f"{records.stem}.images.h5")


def keep_counts(
    out: Path, counts: Counts, rows: Sequence[str], made: Provenance, resamples: int
) -> dict[str, Evidence]:
    """Write the counts of each image of some rows, and compute their intervals.

    Args:
        out: the file of the records.
        counts: what `wsss.score.metrics.parallel.count_in_parallel` gave.
        rows: names of counts that stand in ``counts`` image by image as well.
        made: what the records are made of.
        resamples: draws of the images; 0 = no interval.
    """
    tables = {}
    for row in rows:
        found = counts[images_of(row)]
        assert isinstance(found, ImageCounts)
        tables[row] = found.table()
    path = counts_path(out)
    sha256 = write_counts(path, tables, made)
    return {
        row: Evidence(
            ImageCountsFile(file=path.name, sha256=sha256, row=row),
            interval(table, resamples=resamples),
        )
        for row, table in tables.items()
    }


def counts_of(record: Record, records: Path) -> CountTable:
    """The counts of each image behind a record.

    Args:
        record: one of those in ``records``.
        records: its file.

    Raises:
        ArtifactError: the record has none, or the file is missing, damaged or another one.
    """
    if record.image_counts is None:
        why = (
            "its threshold was looked up on the truth"
            if record.background and record.background.source != "config"
            else "it was scored by an older version: score again"
        )
        raise ArtifactError(f"{records}: {row_name(record)!r} has no counts of images ({why})")
    kept = record.image_counts
    return read_counts(records.parent / kept.file, kept.row, kept.sha256)
