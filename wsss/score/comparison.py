"""Runs side by side: a row a run, a column a product."""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from wsss.score.record import Record, read_records
from wsss.score.rows import Table, percent, row_name
from wsss.score.table import write_table

Rows = dict[str, list[Record]]

NOTES = (
    "mIoU in percent: mean over the labels, background included, that occur in the truth or in the "
    "prediction.",
    "An empty cell was not run.",
)


def make_comparison(rows: Mapping[str, Sequence[Path]], out_dir: Path, name: str) -> list[Path]:
    """Write ``sweep.md``, ``sweep.csv`` (full precision) and ``sweep.html``.

    Args:
        rows: by label the JSON files of the score stage; what several runs share may stand in
            several rows.
        out_dir: folder to write to.
        name: what the runs are runs of.

    Returns:
        The files written.

    Raises:
        ArtifactError: a file is missing or holds no records.
    """
    read = functools.cache(lambda path: read_records([path]))
    found = {label: [r for path in paths for r in read(path)] for label, paths in rows.items()}
    common, found = _split_off_common(found)
    return write_table(out_dir, "sweep", _lay_out(common | found, name), _csv(common | found))


def rows_by_run(paths: Sequence[Path], name: str) -> dict[str, list[Path]]:
    """Files of records by the run that they name, less the name of the whole."""
    rows: dict[str, list[Path]] = {}
    for path in paths:
        for run in dict.fromkeys(record.run for record in read_records([path])):
            rows.setdefault(run.removeprefix(f"{name}."), []).append(path)
    return rows


def _split_off_common(rows: Rows) -> tuple[Rows, Rows]:
    """What all of several rows hold, as a row of its own, and what is left of each."""
    first = next(iter(rows.values()), [])
    common = [r for r in first if all(r in row for row in rows.values())] if len(rows) > 1 else []
    if not common:
        return {}, rows
    return {"shared": common}, {
        label: [r for r in row if r not in common] for label, row in rows.items()
    }


def _lay_out(rows: Rows, name: str) -> Table:
    columns = list(dict.fromkeys(_column(record) for row in rows.values() for record in row))
    report = any(r.report_mean is not None for row in rows.values() for r in row)
    return Table(
        title=f"{name}: {len(rows) - ('shared' in rows)} runs",
        notes=NOTES,
        columns=("run", *columns),
        rows=_rows(rows, columns, report_mean=False),
        class_columns=("run", *columns) if report else (),
        class_rows=_rows(rows, columns, report_mean=True) if report else (),
        class_title="Mean IoU of the report classes",
    )


def _rows(rows: Rows, columns: Sequence[str], *, report_mean: bool) -> tuple[tuple[str, ...], ...]:
    lines = []
    for label, records in rows.items():
        own = {_column(record): record for record in records}
        shares = (_share(own.get(column), report_mean=report_mean) for column in columns)
        lines.append((label, *map(percent, shares)))
    return tuple(lines)


def _share(record: Record | None, *, report_mean: bool) -> float | None:
    if record is None:
        return None
    return record.report_mean if report_mean else record.miou


def _column(record: Record) -> str:
    return f"{row_name(record)}, {record.split}"


def _csv(rows: Rows) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["run", "product", "split", "seed", "variant", "miou", "report_mean"])
    for label, records in rows.items():
        for record in records:
            facts = (record.split, record.seed, record.variant, record.miou, record.report_mean)
            writer.writerow([label, row_name(record), *facts])
    return buffer.getvalue()
