"""The file of counts per image that lies next to the records of a product.

The counts of ``scores/cam.train.json`` lie in ``scores/cam.train.images.h5``. They are written
first; the records name the file with its sha256, so that a file of another age is noticed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.provenance import Provenance
from wsss.config.score import ClassMean
from wsss.score.metrics.bootstrap import Interval, interval
from wsss.score.metrics.image_counts import (
    BoundaryTable,
    CountTable,
    RowCounts,
    read_boundary,
    read_counts,
    read_tags,
    write_counts,
)
from wsss.score.record import ImageCountsFile, Record, read_records


class Scored(NamedTuple):
    """A record and its file, next to which the counts per image lie."""

    file: Path
    record: Record


def read_scored(paths: Sequence[Path]) -> list[Scored]:
    """Read the records of several files, each with its file.

    Raises:
        ArtifactError: see `wsss.score.record.read_records`.
    """
    return [Scored(path, record) for path in paths for record in read_records([path])]


def image_counts_path(records: Path) -> Path:
    """The file of counts per image that belongs to a file of records."""
    return records.with_name(f"{records.stem}.images.h5")


def write_image_counts(
    records: Path,
    rows: Mapping[str, RowCounts],
    provenance: Provenance,
    tags: Mapping[str, Sequence[int]],
    class_mean: ClassMean,
    resamples: int,
) -> dict[str, tuple[ImageCountsFile, Interval | None]]:
    """Write the counts per image of some rows, and compute their intervals.

    Args:
        records: the file of the records.
        rows: by name.
        tags: 0-based classes of each image.
        class_mean: which labels count in the mean IoU.
        resamples: draws of the images; 0 = no interval.
    """
    path = image_counts_path(records)
    sha256 = write_counts(path, rows, provenance, tags)
    return {
        name: (
            ImageCountsFile(file=path.name, sha256=sha256, row=name),
            interval(row.confusion, class_mean=class_mean, resamples=resamples),
        )
        for name, row in rows.items()
    }


def read_image_counts(record: Record, records: Path) -> CountTable:
    """The confusion counts per image behind a record.

    Args:
        record: one of those in ``records``.

    Raises:
        ArtifactError: the record has none, or the file is missing, damaged or another one.
    """
    stored = _file(record, records)
    return read_counts(records.parent / stored.file, stored.row, stored.sha256)


def read_image_boundary(record: Record, records: Path) -> BoundaryTable | None:
    """The boundary counts per image behind a record, if it has any; see `read_image_counts`."""
    stored = _file(record, records)
    return read_boundary(records.parent / stored.file, stored.row, stored.sha256)


def read_image_tags(record: Record, records: Path) -> dict[str, tuple[int, ...]]:
    """The 0-based classes that the images of a record were tagged with; see `read_image_counts`."""
    stored = _file(record, records)
    return read_tags(records.parent / stored.file, stored.sha256)


def _file(record: Record, records: Path) -> ImageCountsFile:
    stored = record.image_counts
    if stored is None:
        why = (
            "its threshold was chosen on the truth"
            if record.at_best_threshold
            else "it was scored by an older version: score again"
        )
        raise ArtifactError(f"{records}: {record.product!r} has no counts per image ({why})")
    return stored
