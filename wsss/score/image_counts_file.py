"""The file of confusion counts per image that lies next to the records of a product.

The counts of ``scores/cam.train.json`` lie in ``scores/cam.train.images.h5``. They are written
first; the records name the file with its sha256, so that a file of another age is noticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.provenance import Provenance
from wsss.score.metrics.bootstrap import Interval, interval
from wsss.score.metrics.image_counts import (
    CountTable,
    ImageCounts,
    read_counts,
    write_counts,
)
from wsss.score.record import ImageCountsFile, Record


def image_counts_path(records: Path) -> Path:
    """The file of counts per image that belongs to a file of records."""
    return records.with_name(f"{records.stem}.images.h5")


def write_image_counts(
    records: Path, counts: Mapping[str, ImageCounts], provenance: Provenance, resamples: int
) -> dict[str, tuple[ImageCountsFile, Interval | None]]:
    """Write the counts per image of some rows, and compute their intervals.

    Args:
        records: the file of the records.
        counts: by row.
        provenance: of the records.
        resamples: draws of the images; 0 = no interval.
    """
    tables = {row: images.table() for row, images in counts.items()}
    path = image_counts_path(records)
    sha256 = write_counts(path, tables, provenance)
    return {
        row: (
            ImageCountsFile(file=path.name, sha256=sha256, row=row),
            interval(table, resamples=resamples),
        )
        for row, table in tables.items()
    }


def read_image_counts(record: Record, records: Path) -> CountTable:
    """The counts per image behind a record.

    Args:
        record: one of those in ``records``.
        records: its file.

    Raises:
        ArtifactError: the record has none, or the file is missing, damaged or another one.
    """
    stored = record.image_counts
    if stored is None:
        why = (
            "its threshold was chosen on the truth"
            if record.at_best_threshold
            else "it was scored by an older version: score again"
        )
        raise ArtifactError(f"{records}: {record.product!r} has no counts per image ({why})")
    return read_counts(records.parent / stored.file, stored.row, stored.sha256)
