"""Runs side by side: a row per run, a column per product; turned where that is narrower."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from wsss.score.record import Record
from wsss.score.tables.rows import SUPERVISED_NOTE, Table, percent, row_name, truth_warnings
from wsss.score.tables.seeds import are_repeats, mean_text, without_seed
from wsss.score.tables.write import Texts, csv_text, table_texts, write_table

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
        rows: the records of each run, by its label; several runs may share records. Those that all
            share become a separate row.
        out_dir: folder to write to.
        name: of the configuration that the runs belong to.

    Returns:
        The files written.
    """
    return write_table(out_dir, "sweep", comparison(rows, name))


def comparison(rows: Mapping[str, Sequence[Record]], name: str) -> Texts:
    """The table of `make_comparison`, which writes it."""
    parted = _split_off_common(rows)
    numbers = [_numbers(label, record) for label, row in parted.items() for record in row]
    return table_texts(_lay_out(parted, name), csv_text(numbers))


def rows_by_run(records: Sequence[Record], name: str) -> Rows:
    """Records by run, without the common first part of its name."""
    rows: Rows = {}
    for record in records:
        label = SHARED if record.run == name else record.run.removeprefix(f"{name}.")
        rows.setdefault(label, []).append(record)
    return rows


def _split_off_common(rows: Mapping[str, Sequence[Record]]) -> Rows:
    """The records that all of several rows hold as a first row, then the others of each row.

    Upper bounds, which share nothing with the others, stand last and do not count here.
    """
    whole = {label: list(row) for label, row in rows.items() if not _is_supervised(row)}
    supervised = {label: list(row) for label, row in rows.items() if _is_supervised(row)}
    if len(whole) < 2:
        return whole | supervised
    first, *others = whole.values()
    common = [record for record in first if all(record in row for row in others)]
    rest = {label: [r for r in row if r not in common] for label, row in whole.items()}
    return ({SHARED: common} if common else {}) | rest | supervised


def _is_supervised(row: Sequence[Record]) -> bool:
    return any(record.supervision == "masks" for record in row)


def _lay_out(rows: Rows, name: str) -> Table:
    columns = list(dict.fromkeys(_column(record) for row in rows.values() for record in row))
    repeated = _repeated(rows)
    heads: tuple[str, ...] = ("run", *columns)
    grids = []
    for field in ("miou", "report_mean"):
        lines = [(label, *_cells(row, columns, field)) for label, row in rows.items()]
        lines += [(label, *_means(group, columns, field)) for label, group in repeated.items()]
        grids.append(lines)
    if len(columns) > len(grids[0]):  # turned: a line per column, labels become the head
        heads = ("product", *(line[0] for line in grids[0]))
        grids = [list(zip(columns, *(line[1:] for line in lines), strict=True)) for lines in grids]
    records = [record for row in rows.values() for record in row]
    report = any(record.report_mean is not None for record in records)
    return Table(
        title=f"{name}: {len(rows) - (SHARED in rows)} runs",
        notes=(
            *truth_warnings(records),
            *([SUPERVISED_NOTE] if _is_supervised(records) else []),
            *NOTES,
            *([SEEDS] if repeated else []),
        ),
        columns=heads,
        rows=tuple(grids[0]),
        class_columns=heads if report else (),
        class_rows=tuple(grids[1]) if report else (),
        class_title="Mean IoU of the report classes",
    )


def _cells(row: Sequence[Record], columns: Sequence[str], field: str) -> list[str]:
    values = {_column(record): getattr(record, field) for record in row}
    return [percent(values.get(column)) for column in columns]


def _repeated(rows: Rows) -> dict[str, list[list[Record]]]:
    """The rows of runs whose labels differ in the seed alone, by a label for the group."""
    groups: dict[str, list[list[Record]]] = {}
    for label, row in rows.items():
        if (bare := without_seed(label)) != label:
            groups.setdefault(bare, []).append(row)
    return {
        ", ".join(filter(None, [bare, f"{len(group)} seeds"])): group
        for bare, group in groups.items()
        if len(group) > 1
    }


def _means(group: Sequence[Sequence[Record]], columns: Sequence[str], field: str) -> Iterator[str]:
    for column in columns:
        records = [record for row in group for record in row if _column(record) == column]
        values = [v for record in records if (v := getattr(record, field)) is not None]
        if len(values) < len(records) or not records:
            yield ""
        elif all(record == records[0] for record in records):  # made before any seed
            yield percent(values[0])
        else:
            repeats = len(records) == len(group) and are_repeats(records)
            yield mean_text(values) if repeats else ""


def _column(record: Record) -> str:
    return f"{row_name(record)}, {record.split}"


def _numbers(label: str, record: Record) -> dict[str, object]:
    fields = ("split", "seed", "variant", "miou", "report_mean", "miou_low", "miou_high")
    return {"run": label, "product": row_name(record)} | {
        name: getattr(record, name) for name in (*fields, "supervision")
    }
