"""The runs of a sweep side by side: a row a run, a column a product."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from wsss.score.record import Record, read_records
from wsss.score.rows import Table, percent, row_name
from wsss.score.table import write_table

NOTES = (
    "mIoU in percent: mean over the labels, background included, that occur in the truth or in the "
    "prediction.",
    "An empty cell was not run.",
)


def make_comparison(records: Sequence[Path], out_dir: Path, name: str) -> list[Path]:
    """Write ``sweep.md``, ``sweep.csv`` (full precision) and ``sweep.html``.

    Args:
        records: JSON files of the score stage; those of what the runs share have a row of their
            own.
        out_dir: folder to write to.
        name: of the sweep: the run whose points these are.

    Returns:
        The files written.

    Raises:
        ArtifactError: a file is missing or holds no records.
    """
    found = read_records(records)
    return write_table(out_dir, "sweep", _lay_out(found, name), _csv(found, name))


def _lay_out(records: Sequence[Record], name: str) -> Table:
    columns = list(dict.fromkeys(map(_column, records)))
    report = any(record.report_mean is not None for record in records)
    rows = [
        (_label(run, name), *_cells(records, run, columns, report_mean=False))
        for run in dict.fromkeys(record.run for record in records)
    ]
    report_rows = [
        (_label(run, name), *_cells(records, run, columns, report_mean=True))
        for run in dict.fromkeys(record.run for record in records)
    ]
    return Table(
        title=f"{name}: {len(rows)} runs",
        notes=NOTES,
        columns=("run", *columns),
        rows=tuple(rows),
        class_columns=("run", *columns) if report else (),
        class_rows=tuple(report_rows) if report else (),
        class_title="Mean IoU of the report classes",
    )


def _cells(
    records: Sequence[Record], run: str, columns: Sequence[str], *, report_mean: bool
) -> list[str]:
    own = {_column(record): record for record in records if record.run == run}
    values = [own.get(column) for column in columns]
    return [
        percent(None if one is None else one.report_mean if report_mean else one.miou)
        for one in values
    ]


def _column(record: Record) -> str:
    return f"{row_name(record)}, {record.split}"


def _label(run: str, name: str) -> str:
    """What tells a run from the others; ``shared`` for what all have in common."""
    return "shared" if run == name else run.removeprefix(f"{name}.")


def _csv(records: Sequence[Record], name: str) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["run", "product", "split", "seed", "variant", "miou", "report_mean"])
    for record in records:
        facts = (record.split, record.seed, record.variant, record.miou, record.report_mean)
        writer.writerow([_label(record.run, name), row_name(record), *facts])
    return buffer.getvalue()
