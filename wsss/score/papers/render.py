"""A paper's table, measured and published side by side: Markdown, CSV, HTML, bars per class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from wsss.config.score import CLASS_MEANS
from wsss.score.figures.curves import Panel, draw_bars
from wsss.score.papers.cells import Cell, Filled, files_of, fill
from wsss.score.papers.published import SUPERVISION_NOTE, TRUTH_NOTE, UNKNOWN_NOTE, ClassValues
from wsss.score.papers.table import PaperTable, Row, load_table
from wsss.score.record import Record
from wsss.score.tables.rows import TAGS_FROM_MASKS, Table, percent, tag_notes
from wsss.score.tables.seeds import seed_statistics
from wsss.score.tables.write import csv_text, table_texts, write_table

ABOUT = ("group", "backbone", "supervision")
"""What a row says of itself, each a column where any row says it."""
NOTES = (
    "Percent, unless the head of a column says otherwise. Ours: in brackets the 95 % interval, of "
    "one seed over resampled images, one training; of several seeds mean ± sample standard "
    "deviation, and the interval over resampled images and seeds. Published: as their sources say, "
    "below.",
    "An empty cell was not run, or is not known.",
)


def make_paper_table(path: Path, files: Mapping[str, Sequence[Path]], out_dir: Path) -> list[Path]:
    """Write ``<table>.md``, ``.csv`` and ``.html``, and ``<table>.png`` where labels are shown.

    Args:
        path: the table, see `wsss.score.papers.table`.
        files: see `wsss.score.papers.cells.fill`; rows without files stay empty.

    Returns:
        The files written.

    Raises:
        ConfigError: the table is not valid, or a row is not in it.
        ArtifactError: a file of records is missing or damaged.
        ValueError: records do not fit the table.
    """
    filled = fill(load_table(path), files)
    texts = table_texts(lay_out(filled), csv_text(list(_numbers(filled))))
    written = write_table(out_dir, path.stem, texts)
    if panels := _panels(filled):
        written.append(out_dir / f"{path.stem}.png")
        given = (path for paths in files.values() for path in paths)
        draw_bars(panels, written[-1], [file for path in given for file in files_of(path)])
    return written


def lay_out(filled: Filled) -> Table:
    """Cells as text."""
    table = filled.table
    about = {name: [getattr(row, name) for row in table.rows] for name in ABOUT}
    about = {name: texts for name, texts in about.items() if any(texts)}
    truths = [_truth(filled, row) for row in table.rows]
    if len(set(filter(None, truths))) > 1:
        about["truth"] = truths
    heads, keys = ["row", *(name.capitalize() for name in about)], []
    for key, column in table.columns.items():
        if any(filled.cell(row, key).values for row in table.rows):
            heads.append(f"{column.title}, ours")
            keys.append((key, True))
        if any(row.value(key) for row in table.rows):
            heads.append(f"{column.title}, published")
            keys.append((key, False))
    rows = []
    for row, *texts in zip(table.rows, *about.values(), strict=True):
        cells = [
            filled.cell(row, key).text if ours else _published_text(table, row, key)
            for key, ours in keys
        ]
        rows.append((row.name, *texts, *cells))
    labels = _labels(filled)
    class_rows = [
        (name, *(percent(values.get(label)) for label in labels))
        for panel in _panels(filled)
        for name, values in _named(panel, several=len(table.class_columns) > 1)
    ]
    return Table(
        title=table.title,
        notes=(
            *filter(None, [table.note]),
            *NOTES,
            *([SUPERVISION_NOTE] if "supervision" in about else []),
            *([TRUTH_NOTE] if "truth" in about else []),
            *([UNKNOWN_NOTE] if any(cell.endswith("?") for row in rows for cell in row) else []),
            *_sources(table),
            *_origins(filled),
        ),
        columns=tuple(heads),
        rows=tuple(rows),
        class_columns=("IoU of", *labels) if class_rows else (),
        class_rows=tuple(class_rows),
    )


def _records(filled: Filled, row: Row) -> list[Record]:
    return [record for key in filled.table.columns for record in filled.cell(row, key).records]


def _truth(filled: Filled, row: Row) -> str:
    """The rules of COCO's truth behind a row's numbers; empty where none is known."""
    ours = dict.fromkeys(r.truth_rule for r in _records(filled, row) if r.truth_rule)
    published = dict.fromkeys(entry.truth or "?" for entry in row.published)
    if not ours:
        return ", ".join(published) if any(entry.truth for entry in row.published) else ""
    if not published or list(ours) == list(published):
        return ", ".join(ours)
    return f"ours {', '.join(ours)}; published {', '.join(published)}"


def _published_text(table: PaperTable, row: Row, key: str) -> str:
    mean, value, column = row.published_mean(key), row.value(key), table.columns[key]
    if mean is None or value is None:
        return ""
    unknown = column.predicts and value[1].follows(column.protocol) is None
    return f"{mean:.1f}" + " ?" * unknown


def _sources(table: PaperTable) -> Iterator[str]:
    """A sentence for each source of each row."""
    for row in table.rows:
        if row.note:
            yield f"{row.name}: {row.note}"
        for published in row.published:
            what = "; ".join(table.columns[key].title for key in published.values)
            yield f"{row.name}, published ({what}): {published.text}"


def _origins(filled: Filled) -> Iterator[str]:
    """What each measured row comes from: images, split, seeds, weights, code, commit."""
    for row in filled.table.rows:
        cells = [filled.cell(row, key) for key in filled.table.columns]
        records = _records(filled, row)
        costs = [cost for cell in cells for cost in cell.costs]
        parts = list(dict.fromkeys(_images(cell) for cell in cells if cell.records))
        if records:
            weights = dict.fromkeys(entry for r in records for entry in r.weights.items())
            used = ", ".join(f"{Path(name).name} {sha[:8]}" for name, sha in weights)
            codes = dict.fromkeys(record.provenance.code[:12] for record in records)
            commits = dict.fromkeys(r.commit[:12] + r.commit[40:] for r in records if r.commit)
            seeds = sorted({record.seed for record in records})
            parts += [
                f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}",
                f"variant {', '.join(dict.fromkeys(r.variant for r in records))}",
                *([TAGS_FROM_MASKS.rstrip(".")] if any(r.tags_from_masks for r in records) else []),
                f"weights {used or 'unknown'}",
                f"code {', '.join(codes)}",
                f"commit {', '.join(commits) or 'unknown'}",
                *(note.rstrip(".") for note in tag_notes(records)),
            ]
        parts += dict.fromkeys(f"trained on {cost.device}" for cost in costs)
        if parts:
            yield f"{row.name}, ours: {'; '.join(parts)}."


def _images(cell: Cell) -> str:
    record = cell.records[0]
    return (
        f"{cell.images} {record.split} images (truth: {record.truth}; mean over labels "
        f"{CLASS_MEANS[record.class_mean]})"
    )


def _labels(filled: Filled) -> list[str]:
    """The labels of the table, or else of the records."""
    cells = [filled.cell(r, key) for r in filled.table.rows for key in filled.table.class_columns]
    scored = list(dict.fromkeys(n for cell in cells for iou in cell.classes for n in iou))
    labels = filled.table.classes or scored
    if unknown := [name for name in scored if name not in labels]:
        raise ValueError(
            f"{filled.table.title}: the records have the labels {', '.join(unknown)} that the "
            "table's classes lack; pass records of the data set that the table is about"
        )
    return labels


def _panels(filled: Filled) -> list[Panel]:
    """The IoU of each label, a panel per column; rows without any are left out."""
    panels = []
    for key in filled.table.class_columns:
        series: dict[str, Mapping[str, float | None]] = {}
        for row in filled.table.rows:
            cell, published = filled.cell(row, key), row.value(key)
            if cell.classes:
                series[f"{row.name}, ours"] = {n: cell.class_mean(n) for n in _labels(filled)}
            if published and isinstance(published[0], ClassValues):
                shares = [value / 100 for value in published[0].classes]
                names = filled.table.classes
                series[f"{row.name}, published"] = dict(zip(names, shares, strict=True))
        if series:
            panels.append(Panel(filled.table.columns[key].title, series))
    return panels


def _named(panel: Panel, *, several: bool) -> Iterator[tuple[str, Mapping[str, float | None]]]:
    for name, values in panel.series.items():
        yield (f"{panel.title}: {name}" if several else name), values


def _numbers(filled: Filled) -> Iterator[dict[str, object]]:
    """A line per row and column with a number, in full precision, shares in percent."""
    labels = _labels(filled)
    for row in filled.table.rows:
        for key, column in filled.table.columns.items():
            cell, published = filled.cell(row, key), row.value(key)
            if not cell.values and published is None:
                continue
            scale = 100.0 if cell.is_share else 1.0
            over = seed_statistics(cell.values) if cell.values else None
            first = cell.records[0] if cell.records else None

            def scaled(value: float | None, scale: float = scale) -> float | None:
                return None if value is None else scale * value

            yield {
                "row": row.name,
                **{name: getattr(row, name) for name in ABOUT},
                "column": key,
                **{k: getattr(column, k) for k in ("metric", "split", "protocol")},
                "product": row.product(key, column),
                "background": column.background,
                "ours": scaled(over.mean if over else None),
                "deviation": scaled(over.std if over else None),
                "seeds": over and over.seeds,
                "low": scaled(cell.interval.low if cell.interval else None),
                "high": scaled(cell.interval.high if cell.interval else None),
                "interval_covers": cell.covers,
                "class_mean": first and first.class_mean,
                "published": row.published_mean(key),
                "source": published and published[1].source,
                "published_scales": published and published[1].scales,
                "published_crf": published and published[1].crf,
                "published_truth": published and published[1].truth,
                "published_images": published and published[1].images,
                "published_class_mean": published and published[1].class_mean,
                "published_note": published and published[1].note,
                "images": cell.images,
                "truth": first and first.truth,
                "truth_rule": first and first.truth_rule,
                "tags_from_masks": first and first.tags_from_masks,
                "chain": first and first.chain,
                "runs": " ".join(record.run for record in cell.records),
                "weights": " ".join(
                    f"{name}={sha}" for r in cell.records for name, sha in r.weights.items()
                ),
                "code": " ".join(dict.fromkeys(r.provenance.code for r in cell.records)),
                "commit": " ".join(dict.fromkeys(r.commit or "" for r in cell.records)),
                "device": " ".join(dict.fromkeys(cost.device for cost in cell.costs)),
                **(
                    _class_cells(cell, published and published[0], labels)
                    if column.metric == "per_class"
                    else {}
                ),
            }


def _class_cells(
    cell: Cell, value: float | ClassValues | None, labels: Sequence[str]
) -> dict[str, float | None]:
    ours = {name: cell.class_mean(name) for name in labels}
    published = value.classes if isinstance(value, ClassValues) else []
    return {f"ours {n}": None if v is None else 100 * v for n, v in ours.items()} | {
        f"published {name}": iou for name, iou in zip(labels, published, strict=False)
    }
