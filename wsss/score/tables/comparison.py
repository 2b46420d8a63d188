"""Runs side by side: a row a run, a column a product; turned where that is narrower."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from wsss.score.record import Record
from wsss.score.tables.rows import Table, percent, row_name
from wsss.score.tables.seeds import made_alike, mean_text, without_seed
from wsss.score.tables.write import write_table

Rows = dict[str, list[Record]]
"""Records of each run, by its label."""
SHARED = "shared"

NOTES = (
    "mIoU in percent: mean over the labels, background included, that occur in the truth or in the "
    "prediction.",
    "An empty cell was not run.",
)
SEEDS = "Rows of several seeds: mean ± standard deviation over runs that differ in the seed alone."


def make_comparison(rows: Mapping[str, Sequence[Record]], out_dir: Path, name: str) -> list[Path]:
    """Write ``sweep.md``, ``sweep.csv`` (full precision) and ``sweep.html``.

    Args:
        rows: the records of each run, by its label; what several runs share may stand in several
            rows, and what all share gets a row of its own.
        out_dir: folder to write to.
        name: what the runs are runs of.

    Returns:
        The files written.
    """
    parted = _split_off_common(rows)
    return write_table(out_dir, "sweep", _lay_out(parted, name), _csv(parted))


def rows_by_run(records: Sequence[Record], name: str) -> Rows:
    """Records by the run that they name, less the name of the whole."""
    rows: Rows = {}
    for record in records:
        label = SHARED if record.run == name else record.run.removeprefix(f"{name}.")
        rows.setdefault(label, []).append(record)
    return rows


def _split_off_common(rows: Mapping[str, Sequence[Record]]) -> Rows:
    """What all of several rows hold as a first row of its own, then what is left of each."""
    whole = {label: list(row) for label, row in rows.items()}
    if len(whole) < 2:
        return whole
    first, *others = whole.values()
    common = [record for record in first if all(record in row for row in others)]
    own = {label: [r for r in row if r not in common] for label, row in whole.items()}
    return ({SHARED: common} if common else {}) | own


def _lay_out(rows: Rows, name: str) -> Table:
    columns = list(dict.fromkeys(_column(record) for row in rows.values() for record in row))
    report = any(r.report_mean is not None for row in rows.values() for r in row)
    repeated = _repeated(rows)
    lines, report_lines = (
        [(label, *_cells(row, columns, report_mean=mean)) for label, row in rows.items()]
        + [(label, *_means(group, columns, report_mean=mean)) for label, group in repeated.items()]
        for mean in (False, True)
    )
    heads, own, own_of_report = ("run", *columns), tuple(lines), tuple(report_lines)
    if len(columns) > len(lines):
        heads = ("product", *(line[0] for line in own))
        own, own_of_report = _turned(columns, own), _turned(columns, own_of_report)
    return Table(
        title=f"{name}: {len(rows) - (SHARED in rows)} runs",
        notes=(*NOTES, SEEDS) if repeated else NOTES,
        columns=heads,
        rows=own,
        class_columns=heads if report else (),
        class_rows=own_of_report if report else (),
        class_title="Mean IoU of the report classes",
    )


def _turned(
    columns: Sequence[str], lines: Sequence[tuple[str, ...]]
) -> tuple[tuple[str, ...], ...]:
    """A line a column; the first cell of each line, the label, is left to the head."""
    return tuple(zip(columns, *(line[1:] for line in lines), strict=True))


def _cells(row: Sequence[Record], columns: Sequence[str], *, report_mean: bool) -> list[str]:
    own = {_column(record): record for record in row}
    values = [own.get(column) for column in columns]
    return [percent(None if one is None else _value(one, report_mean)) for one in values]


def _repeated(rows: Rows) -> dict[str, list[list[Record]]]:
    """The rows of runs that are called alike but for their seed, by what to call them together."""
    groups: dict[str, list[list[Record]]] = {}
    for label, row in rows.items():
        if (bare := without_seed(label)) != label:
            groups.setdefault(bare, []).append(row)
    return {
        ", ".join(filter(None, [bare, f"{len(group)} seeds"])): group
        for bare, group in groups.items()
        if len(group) > 1
    }


def _means(
    group: Sequence[Sequence[Record]], columns: Sequence[str], *, report_mean: bool
) -> Iterator[str]:
    for column in columns:
        found = [record for row in group for record in row if _column(record) == column]
        known = [v for record in found if (v := _value(record, report_mean)) is not None]
        if len(known) < len(found) or not found:
            yield ""
        elif all(record == found[0] for record in found):  # no seed comes before it
            yield percent(known[0])
        else:
            yield mean_text(known) if len(found) == len(group) and made_alike(found) else ""


def _value(record: Record, report_mean: bool) -> float | None:
    return record.report_mean if report_mean else record.miou


def _column(record: Record) -> str:
    return f"{row_name(record)}, {record.split}"


def _csv(rows: Rows) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    facts = ("split", "seed", "variant", "miou", "report_mean", "miou_low", "miou_high")
    writer.writerow(["run", "product", *facts])
    for label, row in rows.items():
        for record in row:
            values = [getattr(record, fact) for fact in facts]
            writer.writerow([label, row_name(record), *values])
    return buffer.getvalue()
