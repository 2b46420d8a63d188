"""The runs of a sweep side by side: a row a run, a column a product."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from wsss.score.record import Record, read_records
from wsss.score.rows import Table, percent, row_name
from wsss.score.spread import made_alike, mean_text, without_seed
from wsss.score.table import write_table

NOTES = (
    "mIoU in percent: mean over the labels, background included, that occur in the truth or in the "
    "prediction.",
    "An empty cell was not run.",
)
SEEDS = "Rows of several seeds: mean ± standard deviation over runs that differ in the seed alone."


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
    runs = list(dict.fromkeys(record.run for record in records))
    rows, report_rows = (
        [(_label(run, name), *_cells(records, run, columns, report_mean=mean)) for run in runs]
        + _seed_rows(records, name, columns, report_mean=mean)
        for mean in (False, True)
    )
    return Table(
        title=f"{name}: {len(runs)} runs",
        notes=(*NOTES, SEEDS) if len(rows) > len(runs) else NOTES,
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
    return [percent(None if one is None else _value(one, report_mean)) for one in values]


def _seed_rows(
    records: Sequence[Record], name: str, columns: Sequence[str], *, report_mean: bool
) -> list[tuple[str, ...]]:
    """A row for each configuration that was run with several seeds."""
    rows = []
    for group, runs in repeated(records).items():
        cells = []
        for column in columns:
            found = [record for record in runs if _column(record) == column]
            values = [_value(record, report_mean) for record in found]
            known = [value for value in values if value is not None]
            alike = len(known) == len(found) > 1 and made_alike(found)
            cells.append(mean_text(known) if alike else "")
        seeds = f"{len({record.seed for record in runs})} seeds"
        label = seeds if group == name else f"{_label(group, name)}, {seeds}"
        rows.append((label, *cells))
    return rows


def repeated(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The records of runs that are named alike but for their seed, by that name."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        if without_seed(record) != record.run:
            groups.setdefault(without_seed(record), []).append(record)
    return {name: found for name, found in groups.items() if len({r.seed for r in found}) > 1}


def _value(record: Record, report_mean: bool) -> float | None:
    return record.report_mean if report_mean else record.miou


def _column(record: Record) -> str:
    return f"{row_name(record)}, {record.split}"


def _label(run: str, name: str) -> str:
    """What tells a run from the others; ``shared`` for what all have in common."""
    return "shared" if run == name else run.removeprefix(f"{name}.")


def _csv(records: Sequence[Record], name: str) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    facts = ("split", "seed", "variant", "miou", "report_mean", "miou_low", "miou_high")
    writer.writerow(["run", "product", *facts])
    for record in records:
        values = [getattr(record, fact) for fact in facts]
        writer.writerow([_label(record.run, name), row_name(record), *values])
    return buffer.getvalue()
