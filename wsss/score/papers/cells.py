"""The cells of a paper's table, filled with numbers of the records of its runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from wsss.artifacts.errors import ArtifactError
from wsss.config.base import MIXED, UPPER_BOUND
from wsss.config.paths import expand_path
from wsss.data.counted import list_images
from wsss.data.datasets.files import read_lines
from wsss.refine.training.efficiency import Efficiency
from wsss.score.image_counts_file import Scored, read_image_counts, read_scored
from wsss.score.metrics.bootstrap import (
    IMAGES,
    IMAGES_AND_SEEDS,
    Interval,
    interval,
    seeds_interval,
)
from wsss.score.metrics.confusion import metrics_of
from wsss.score.papers.table import Column, Cost, PaperTable, Row, row_of
from wsss.score.record import Record, defined
from wsss.score.tables.efficiency import COSTS, read_efficiency
from wsss.score.tables.rows import interval_text, row_name
from wsss.score.tables.seeds import are_repeats, mean_text, pooled_interval, seed_statistics


@dataclass(frozen=True)
class RowFiles:
    """What the files of one row hold."""

    records: tuple[Scored, ...] = ()
    costs: tuple[Efficiency, ...] = ()


@dataclass(frozen=True)
class Cell:
    """A measured number; the empty one was not run."""

    values: tuple[float, ...] = ()
    """One per seed: shares, or the cost of a training in the unit of the table."""
    interval: Interval | None = None
    """95 %; see `covers`."""
    classes: tuple[Mapping[str, float | None], ...] = ()
    """IoU of each label, one mapping per seed."""
    records: tuple[Record, ...] = ()
    costs: tuple[Efficiency, ...] = ()
    images: int | None = None
    is_share: bool = True

    @property
    def text(self) -> str:
        """``76.1 (74.9–77.2)``; of several seeds ``76.1 ± 0.3 (74.8–77.5)``."""
        if not self.values:
            return ""
        scale = 1.0 if self.is_share else 0.01  # costs are in their unit, shares become percent
        mean, ends = mean_text([scale * value for value in self.values]), self.interval
        return mean + (f" ({interval_text(ends.low, ends.high)})" if ends else "")

    @property
    def covers(self) -> str:
        """What the interval covers; empty without one."""
        if self.interval is None:
            return ""
        return IMAGES_AND_SEEDS if len(self.values) > 1 else IMAGES

    def class_mean(self, label: str) -> float | None:
        """Mean IoU of a label over the seeds that have one."""
        values = [iou for seed in self.classes if (iou := seed.get(label)) is not None]
        return seed_statistics(values).mean if values else None


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
        table: its rows and columns.
        files: by row (its name, its slug or the label of one of its runs) files of records, files
            that give the cost of a training, or folders of runs that hold both.

    Raises:
        ConfigError: a row is not in the table.
        ArtifactError: a file is missing, damaged or something else.
        ValueError: several records fit a cell and differ in more than their seed, a list of images
            does not fit, or a record is of another supervision than its row.
    """
    contents: dict[str, RowFiles] = {}
    for label, paths in files.items():
        row, more = row_of(table, label), read_files(paths)
        before = contents.get(row.name, RowFiles())
        contents[row.name] = RowFiles(before.records + more.records, before.costs + more.costs)
    cells = {}
    for row in table.rows:
        for key, column in table.columns.items():
            product = row.product(key, column)
            if row.name in contents and product is not None:
                where = f"{table.title}: row {row.name!r}, column {key!r}"
                cell = _cell(contents[row.name], column, product, where)
                _check_supervision(cell, row, where)
                if cell.values:
                    cells[row.name, key] = cell
    return Filled(table, cells)


def read_files(paths: Sequence[Path]) -> RowFiles:
    """Read files of records and of costs, and those in folders of runs.

    Raises:
        ArtifactError: a file is missing or neither; a folder holds none.
    """
    records: list[Scored] = []
    costs = []
    for path in dict.fromkeys(file for given in paths for file in files_of(given)):
        if _is_cost(path):
            costs.append(read_efficiency(path))
        else:
            records += read_scored([path])
    return RowFiles(tuple(records), tuple(costs))


def files_of(path: Path) -> list[Path]:
    """The file itself, or the files of records and costs in the folder of a run.

    Raises:
        ArtifactError: the folder holds none.
    """
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("scores/*.json")) + sorted(path.glob("refine/efficiency.json"))
    if not files:
        raise ArtifactError(
            f"{path}: has no scores/*.json and no refine/efficiency.json; pass the folder of a "
            "run (results/<name>) or files of records"
        )
    return files


def _is_cost(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_text("utf-8")), dict)
    except (OSError, ValueError):
        return False  # reading it as records says what is wrong


def _cell(files: RowFiles, column: Column, product: str, where: str) -> Cell:
    if column.metric in get_args(Cost):
        costs = [COSTS[column.metric](cost) for cost in files.costs]
        numbers = tuple(value for value in costs if value is not None)
        return Cell(numbers, costs=files.costs, is_share=False)
    matches = [scored for scored in files.records if _matches(scored.record, column, product)]
    records = tuple(record for _, record in matches)
    if len(records) > 1 and not are_repeats(records):
        runs = ", ".join(f"{path} ({row_name(record)})" for path, record in matches)
        raise ValueError(
            f"{where}: several records fit that differ in more than their seed: {runs}; pass those "
            "of one configuration"
        )
    if column.images:
        return _of_images(matches, column, where)
    metric = "miou" if column.metric == "per_class" else column.metric
    values = tuple(v for r in records if (v := getattr(r, metric)) is not None)
    return Cell(
        values=values,
        interval=_interval(matches) if metric == "miou" and values else None,
        classes=tuple(record.iou for record in records),
        records=records,
        images=records[0].images if records else None,
    )


def _interval(matches: Sequence[Scored]) -> Interval | None:
    """That of the record, or of several seeds together."""
    if len(matches) > 1:
        return pooled_interval(matches)
    low, high = matches[0].record.miou_low, matches[0].record.miou_high
    return None if low is None or high is None else Interval(low, high)


def _check_supervision(cell: Cell, row: Row, where: str) -> None:
    """Refuse numbers of an upper bound in another row than one of full supervision, and others."""
    for record in cell.records:
        if record.supervision == "mixed":
            raise ValueError(
                f"{where}: the run {record.run} has retrain.corrected, {MIXED}; no row of a paper "
                "is of that kind"
            )
    for record in cell.records:
        if record.uses_sam != ("SAM" in row.supervision.split("+")):
            raise ValueError(
                f"{where}: the run {record.run} was made "
                f"{'with' if record.uses_sam else 'without'} mask proposals (masks.refine: sam), "
                f"but the row's supervision is {row.supervision or 'empty'}; such runs, and only "
                "they, belong in a row whose supervision names SAM, e.g. I+SAM"
            )
    upper = [(f"the run {record.run}", record.supervision == "masks") for record in cell.records]
    upper += [(cost.method, cost.method.endswith(UPPER_BOUND)) for cost in cell.costs]
    for name, is_upper in upper:
        if is_upper != (row.supervision == "F"):
            raise ValueError(
                f"{where}: {name} has supervision: {'masks' if is_upper else 'tags'}, the row says "
                f"{row.supervision or 'nothing'}; F is for masks, and for masks alone"
            )


def _matches(record: Record, column: Column, product: str) -> bool:
    return (record.product, record.split, record.protocol, record.at_best_threshold) == (
        product,
        column.split,
        column.protocol,
        column.background == "best",
    )


def _of_images(matches: Sequence[Scored], column: Column, where: str) -> Cell:
    """The numbers over a list of images, from the counts per image."""
    if not matches:
        return Cell()
    path = expand_path(column.images)
    if not path.is_file():
        raise ArtifactError(f"{where}: {path}: no such list of images; put it there")
    ids = read_lines(path)
    values, classes, tables = [], [], []
    class_mean = matches[0].record.class_mean
    for file, record in matches:
        counts = read_image_counts(record, file)
        if missing := sorted(set(ids) - set(counts.ids)):
            raise ValueError(
                f"{where}: {file}: {path} has {list_images(missing)} that were not scored; "
                "score a split that holds them"
            )
        listed = counts.of(ids)
        metrics = metrics_of(listed.total(), class_mean)
        values.append(metrics.miou)
        classes.append({n: defined(v) for n, v in zip(record.iou, metrics.iou, strict=True)})
        tables.append(listed)
    single = len(tables) == 1
    resamples = matches[0].record.resamples
    return Cell(
        values=tuple(values),
        interval=interval(tables[0], class_mean=class_mean, resamples=resamples)
        if single
        else seeds_interval(tables, class_mean=class_mean, resamples=resamples),
        classes=tuple(classes),
        records=tuple(record for _, record in matches),
        images=len(set(ids)),
    )
