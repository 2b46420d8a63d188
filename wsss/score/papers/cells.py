"""What stands in the cells of a paper's table: numbers of the records that its runs left."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from wsss.artifacts.errors import ArtifactError
from wsss.config.paths import expand_path
from wsss.refine.training.efficiency import Efficiency
from wsss.score.image_counts_file import counts_of
from wsss.score.metrics.bootstrap import interval
from wsss.score.metrics.confusion import metrics_of
from wsss.score.papers.table import Column, Cost, PaperTable, Row, row_of
from wsss.score.product import name_some
from wsss.score.record import Record, defined, read_records
from wsss.score.tables.efficiency import read_efficiency
from wsss.score.tables.rows import percent, product_of, protocol_of, row_name
from wsss.score.tables.seeds import made_alike, mean_text, spread

_COSTS = {
    "trained_parameters": lambda cost: cost.trained_parameters / 1e6,
    "parameters": lambda cost: cost.parameters / 1e6,
    "trained_share": lambda cost: 100 * cost.trained_parameters / cost.parameters,
    "images_per_second": lambda cost: cost.images_per_second,
    "peak_memory": lambda cost: cost.peak_memory / 2**30,
}


@dataclass(frozen=True)
class Found:
    """What the files of one row hold."""

    records: tuple[tuple[Path, Record], ...] = ()
    costs: tuple[Efficiency, ...] = ()


@dataclass(frozen=True)
class Cell:
    """A measured number; the empty one was not run."""

    values: tuple[float, ...] = ()
    """One a seed: shares, or what a training cost in the unit of the table."""
    low: float | None = None
    high: float | None = None
    """The 95 % interval over images, of a single seed."""
    classes: tuple[Mapping[str, float | None], ...] = ()
    """IoU of each label, one a seed."""
    records: tuple[Record, ...] = ()
    costs: tuple[Efficiency, ...] = ()
    images: int | None = None
    is_share: bool = True

    @property
    def text(self) -> str:
        """``76.1 (74.9–77.2)`` with an interval, ``76.1 ± 0.3`` of several seeds."""
        if not self.values:
            return ""
        scale = 1.0 if self.is_share else 0.01  # costs are in their unit, shares become percent
        if len(self.values) > 1 or self.low is None:
            return mean_text([scale * value for value in self.values])
        return f"{percent(self.values[0])} ({percent(self.low)}–{percent(self.high)})"

    def class_mean(self, label: str) -> float | None:
        """Mean IoU of a label over the seeds that have one."""
        values = [one[label] for one in self.classes if one.get(label) is not None]
        return spread([v for v in values if v is not None]).mean if values else None


@dataclass(frozen=True)
class Filled:
    """A table with what was measured."""

    table: PaperTable
    cells: Mapping[tuple[str, str], Cell] = field(default_factory=dict)
    """By name of the row and key of the column; those that were not run are missing."""

    def cell(self, row: Row, column: str) -> Cell:
        """The cell, perhaps empty."""
        return self.cells.get((row.name, column), Cell())


def fill(table: PaperTable, files: Mapping[str, Sequence[Path]]) -> Filled:
    """Fill the cells.

    Args:
        table: what is wanted.
        files: by row (its name, its slug or the label of one of its runs) files of records, files
            that say what a training cost, or folders of runs that hold both.

    Raises:
        ConfigError: a row is not in the table.
        ArtifactError: a file is missing, damaged or something else.
        ValueError: several records fit a cell and differ in more than their seed, or a list of
            images does not fit.
    """
    found: dict[str, Found] = {}
    for label, paths in files.items():
        row, more = row_of(table, label), read_found(paths)
        old = found.get(row.name, Found())
        found[row.name] = Found(old.records + more.records, old.costs + more.costs)
    cells = {}
    for row in table.rows:
        for key, column in table.columns.items():
            product = row.takes.get(key) or next(iter(column.product), None)
            if row.name in found and product is not None:
                where = f"{table.title}: row {row.name!r}, column {key!r}"
                cell = _cell(found[row.name], column, product, where)
                if cell.values:
                    cells[row.name, key] = cell
    return Filled(table, cells)


def read_found(paths: Sequence[Path]) -> Found:
    """Read files of records and of costs, and those in folders of runs.

    Raises:
        ArtifactError: a file is missing or neither; a folder holds none.
    """
    records: list[tuple[Path, Record]] = []
    costs = []
    for path in dict.fromkeys(file for given in paths for file in _files(given)):
        if _is_cost(path):
            costs.append(read_efficiency(path))
        else:
            records += [(path, record) for record in read_records([path])]
    return Found(tuple(records), tuple(costs))


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("scores/*.json")) + sorted(path.glob("refine/efficiency.json"))
    if not found:
        raise ArtifactError(
            f"{path}: has no scores/*.json and no refine/efficiency.json; pass the folder of a "
            "run (results/<name>) or files of records"
        )
    return found


def _is_cost(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_text("utf-8")), dict)
    except (OSError, ValueError):
        return False  # reading it as records says what is wrong


def _cell(found: Found, column: Column, product: str, where: str) -> Cell:
    if column.metric in get_args(Cost):
        every = [_COSTS[column.metric](cost) for cost in found.costs]
        known = tuple(value for value in every if value is not None)
        return Cell(known, costs=found.costs, is_share=False)
    fitting = [(p, r) for p, r in found.records if _fits(r, column, product)]
    records = tuple(record for _, record in fitting)
    if len(records) > 1 and not made_alike(records):
        runs = ", ".join(f"{path} ({row_name(record)})" for path, record in fitting)
        raise ValueError(
            f"{where}: several records fit that differ in more than their seed: {runs}; pass those "
            "of one configuration"
        )
    if column.images:
        return _of_images(fitting, column, where)
    metric = "miou" if column.metric == "per_class" else column.metric
    values = tuple(v for r in records if (v := getattr(r, metric)) is not None)
    single = records[0] if len(records) == 1 and metric == "miou" else None
    return Cell(
        values=values,
        low=single.miou_low if single else None,
        high=single.miou_high if single else None,
        classes=tuple(record.iou for record in records),
        records=records,
        images=records[0].images if records else None,
    )


def _fits(record: Record, column: Column, product: str) -> bool:
    best = record.background is not None and record.background.source != "config"
    return (product_of(record), record.split, protocol_of(record), best) == (
        product,
        column.split,
        column.protocol,
        column.background == "best",
    )


def _of_images(fitting: Sequence[tuple[Path, Record]], column: Column, where: str) -> Cell:
    """The numbers over a list of images, from the counts of each."""
    if not fitting:
        return Cell()
    path = expand_path(column.images)
    if not path.is_file():
        raise ArtifactError(f"{where}: {path}: no such list of images; put it there")
    ids = path.read_text("utf-8").split()
    values, classes, found = [], [], None
    for file, record in fitting:
        counts = counts_of(record, file)
        if missing := sorted(set(ids) - set(counts.ids)):
            raise ValueError(
                f"{where}: {file}: {path} has {name_some(missing)} that were not scored; "
                "score a split that holds them"
            )
        chosen = counts.of(ids)
        metrics = metrics_of(chosen.total())
        values.append(metrics.miou)
        classes.append({n: defined(v) for n, v in zip(record.iou, metrics.iou, strict=True)})
        found = interval(chosen) if len(fitting) == 1 else None
    return Cell(
        values=tuple(values),
        low=found.low if found else None,
        high=found.high if found else None,
        classes=tuple(classes),
        records=tuple(record for _, record in fitting),
        images=len(set(ids)),
    )
