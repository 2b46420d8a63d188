"""Runs side by side: a row per run, a column per product; turned where that is narrower."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsss.score.image_counts_file import Scored
from wsss.score.metrics.bootstrap import IMAGES, IMAGES_AND_SEEDS, Interval
from wsss.score.record import Record
from wsss.score.tables.rows import (
    Table,
    class_mean_notes,
    interval_text,
    percent,
    row_name,
    sam_notes,
    supervision_notes,
    tag_notes,
    warnings,
)
from wsss.score.tables.seeds import (
    are_repeats,
    mean_text,
    pooled_interval,
    seed_statistics,
    without_seed,
)
from wsss.score.tables.write import Texts, csv_text, table_texts, write_table

Rows = dict[str, list[Scored]]
"""Records of each run, by its label."""
SHARED = "shared"
_About = Mapping[str, Callable[[Sequence[Record]], str]]
"""Columns in front of the products: what tells runs apart, by head."""

NOTES = ("mIoU in percent.", "An empty cell was not run.")
SEEDS = (
    "Rows of several seeds: mean ± sample standard deviation over runs that differ in the seed "
    "alone; in brackets 95 % of the means over resampled images and seeds."
)


@dataclass(frozen=True)
class _Group:
    """A product of runs whose labels differ in the seed alone."""

    records: tuple[Record, ...]
    are_repeats: bool
    """Whether they differ in the seed alone."""
    interval: Interval | None

    @property
    def is_one(self) -> bool:
        """Whether the product was made before any seed."""
        return all(record == self.records[0] for record in self.records)

    def values(self, field: Literal["miou", "report_mean"]) -> list[float]:
        """The numbers of all seeds; none where one is undefined, or where they do not compare."""
        values = [v for record in self.records if (v := getattr(record, field)) is not None]
        comparable = self.is_one or self.are_repeats
        return values if comparable and len(values) == len(self.records) else []

    def text(self, field: Literal["miou", "report_mean"]) -> str:
        """``53.0 ± 3.6 (49.1–57.0)``; empty without `values`."""
        values = self.values(field)
        if not values or self.is_one:
            return percent(values[0]) if values else ""
        ends = self.interval if field == "miou" else None
        return mean_text(values) + (f" ({interval_text(ends.low, ends.high)})" if ends else "")


Groups = dict[str, dict[str, _Group]]
"""By label of the group and column."""


def make_comparison(rows: Mapping[str, Sequence[Scored]], out_dir: Path, name: str) -> list[Path]:
    """Write ``sweep.md``, ``sweep.csv`` (full precision) and ``sweep.html``.

    Args:
        rows: the records of each run, by its label; several runs may share records. Those that all
            share become a separate row.
        name: of the configuration that the runs belong to.

    Returns:
        The files written.

    Raises:
        ArtifactError: the counts per image behind a row of several seeds are missing or damaged.
    """
    return write_table(out_dir, "sweep", comparison(rows, name))


def comparison(rows: Mapping[str, Sequence[Scored]], name: str) -> Texts:
    """The table of `make_comparison`, which writes it."""
    parted = _split_off_common(rows)
    groups = _groups(parted)
    numbers = [_numbers(label, scored.record) for label, row in parted.items() for scored in row]
    numbers += [
        _group_numbers(label, group)
        for label, by_column in groups.items()
        for group in by_column.values()
        if group.values("miou") and not group.is_one
    ]
    return table_texts(_lay_out(parted, groups, name), csv_text(numbers))


def rows_by_run(records: Sequence[Scored], name: str) -> Rows:
    """Records by run, without the common first part of its name."""
    rows: Rows = {}
    for scored in records:
        run = scored.record.run
        label = SHARED if run == name else run.removeprefix(f"{name}.")
        rows.setdefault(label, []).append(scored)
    return rows


def _split_off_common(rows: Mapping[str, Sequence[Scored]]) -> Rows:
    """The records that all of several rows hold as a first row, then the others of each row.

    Upper bounds, which share nothing with the others, stand last and do not count here.
    """
    upper = {label for label, row in rows.items() if _is_supervised(_records(row))}
    whole = {label: list(row) for label, row in rows.items() if label not in upper}
    supervised = {label: list(rows[label]) for label in rows if label in upper}
    if len(whole) < 2:
        return whole | supervised
    first, *others = whole.values()
    common = [scored for scored in first if all(scored in row for row in others)]
    rest = {label: [s for s in row if s not in common] for label, row in whole.items()}
    return ({SHARED: common} if common else {}) | rest | supervised


def _is_supervised(records: Sequence[Record]) -> bool:
    return any(record.supervision == "masks" for record in records)


def _lay_out(rows: Rows, groups: Groups, name: str) -> Table:
    records = [scored.record for row in rows.values() for scored in row]
    columns = list(dict.fromkeys(_column(record) for record in records))
    about = _about(records, {_backbones(_records(row)) for row in rows.values()})
    heads: tuple[str, ...] = ("run", *about, *columns)
    grids = []
    fields: tuple[Literal["miou", "report_mean"], ...] = ("miou", "report_mean")
    for field in fields:
        lines = [
            (label, *(cell(_records(row)) for cell in about.values()), *_cells(row, columns, field))
            for label, row in rows.items()
        ]
        lines += [
            (
                label,
                *(cell(next(iter(group.values())).records) for cell in about.values()),
                *(group[c].text(field) if c in group else "" for c in columns),
            )
            for label, group in groups.items()
        ]
        grids.append(lines)
    # Turned where that is narrower: a line per column, labels become the head.
    if len(heads) > 1 + len(grids[0]) and not {"Backbone", "Supervision"} & set(about):
        products = heads[1:]
        heads = ("product", *(line[0] for line in grids[0]))
        grids = [list(zip(products, *(line[1:] for line in lines), strict=True)) for lines in grids]
    report = any(record.report_mean is not None for record in records)
    return Table(
        title=f"{name}: {len(rows) - (SHARED in rows)} runs",
        notes=(
            *(
                f"{label}: {note}"
                for label, row in rows.items()
                for note in tag_notes(_records(row))
            ),
            *warnings(records),
            *supervision_notes(
                {record.supervision for record in records}, (record.mixture for record in records)
            ),
            *sam_notes(records),
            *NOTES,
            *class_mean_notes(records),
            *([SEEDS] if groups else []),
        ),
        columns=heads,
        rows=tuple(grids[0]),
        class_columns=heads if report else (),
        class_rows=tuple(grids[1]) if report else (),
        class_title="Mean IoU of the report classes",
    )


def _records(row: Sequence[Scored]) -> list[Record]:
    return [scored.record for scored in row]


def _about(records: Sequence[Record], backbones: set[str]) -> _About:
    """The encoders where runs differ in them, and the tags where they were changed on purpose."""
    about: dict[str, Callable[[Sequence[Record]], str]] = {}
    if len(backbones - {""}) > 1:
        about["Backbone"] = _backbones
    if any(record.uses_sam for record in records):
        about["Supervision"] = lambda row: "; ".join(dict.fromkeys(_signs(row)))
    if any(record.tag_quality for record in records):
        about["tag precision"] = lambda row: _tag_cell(row, "precision")
        about["tag recall"] = lambda row: _tag_cell(row, "recall")
    return about


def _backbones(row: Sequence[Record]) -> str:
    """Encoders of what the run made; of CLIP alone it says nothing where a second one follows."""
    names = dict.fromkeys(record.backbone for record in row if record.backbone)
    return "; ".join(n for n in names if not any(o.startswith(f"{n} + ") for o in names))


def _signs(row: Sequence[Record]) -> Iterator[str]:
    """Supervision of what the run made; CAMs and scores before its masks say nothing of them."""
    with_masks = [record for record in row if record.product in ("masks", "segmenter")]
    yield from (record.supervision_sign for record in with_masks or row)


def _tag_cell(row: Sequence[Record], field: Literal["precision", "recall"]) -> str:
    """Precision or recall of the tags of a run; those of the given tags are 100."""
    quality = next((record.tag_quality for record in row if record.tag_quality), None)
    return percent(getattr(quality, field) if quality else 1.0)


def _cells(row: Sequence[Scored], columns: Sequence[str], field: str) -> list[str]:
    values = {_column(record): getattr(record, field) for _, record in row}
    return [percent(values.get(column)) for column in columns]


def _groups(rows: Rows) -> Groups:
    """The products of runs whose labels differ in the seed alone, by a label for the group."""
    groups: dict[str, list[list[Scored]]] = {}
    for label, row in rows.items():
        if (bare := without_seed(label)) != label:
            groups.setdefault(bare, []).append(row)
    return {
        ", ".join(filter(None, [bare, f"{len(group)} seeds"])): dict(_products(group))
        for bare, group in groups.items()
        if len(group) > 1
    }


def _products(group: Sequence[Sequence[Scored]]) -> Iterator[tuple[str, _Group]]:
    by_column: dict[str, list[Scored]] = {}
    for row in group:
        for scored in row:
            by_column.setdefault(_column(scored.record), []).append(scored)
    for column, several in by_column.items():
        records = tuple(scored.record for scored in several)
        repeats = len(records) == len(group) and are_repeats(records)
        yield column, _Group(records, repeats, pooled_interval(several) if repeats else None)


def _column(record: Record) -> str:
    truth = f", truth {record.truth_rule}" if record.truth_rule else ""
    return f"{row_name(record)}, {record.split}{truth}"


def _numbers(label: str, record: Record) -> dict[str, object]:
    fields = (
        *("split", "seed", "variant", "miou", "report_mean", "miou_low", "miou_high"),
        *("truth_rule", "supervision", "supervision_sign", "backbone"),
    )
    tags = record.tag_quality
    quality = {"tag_precision": tags.precision, "tag_recall": tags.recall} if tags else {}
    return {
        "run": label,
        "product": row_name(record),
        **{name: getattr(record, name) for name in fields},
        **quality,
        "interval_covers": "" if record.miou_low is None else IMAGES,
        "class_mean": record.class_mean,
        "seeds": 1,
    }


def _group_numbers(label: str, group: _Group) -> dict[str, object]:
    first, over = group.records[0], seed_statistics(group.values("miou"))
    report = group.values("report_mean")
    return {
        "run": label,
        "product": row_name(first),
        "split": first.split,
        "variant": first.variant,
        "miou": over.mean,
        "report_mean": seed_statistics(report).mean if report else None,
        "miou_low": group.interval and group.interval.low,
        "miou_high": group.interval and group.interval.high,
        "truth_rule": first.truth_rule,
        "supervision": first.supervision,
        "supervision_sign": first.supervision_sign,
        "backbone": first.backbone,
        "interval_covers": IMAGES_AND_SEEDS if group.interval else "",
        "class_mean": first.class_mean,
        "seeds": over.seeds,
        "miou_deviation": over.std,
    }
