"""One table of all rows: Markdown, CSV with every number, HTML for the report."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from wsss.artifacts.atomic import write_text
from wsss.score.image_counts_file import read_scored
from wsss.score.metrics.bootstrap import IMAGES
from wsss.score.record import Record
from wsss.score.tables.html import html_page
from wsss.score.tables.layout import lay_out
from wsss.score.tables.rows import Table, product_title, row_name
from wsss.score.tables.steps import in_order, steps_of

Texts = dict[str, str]
"""A table as Markdown, CSV and HTML, by suffix."""


def make_table(records: Sequence[Path], out_dir: Path) -> list[Path]:
    """Write ``table.md``, ``table.csv`` (full precision) and ``table.html`` (self-contained).

    Args:
        records: JSON files of the score stage, in the order of the rows.

    Returns:
        The files written.

    Raises:
        ArtifactError: see `score_table`.
    """
    return write_table(out_dir, "table", score_table(records))


def score_table(records: Sequence[Path]) -> Texts:
    """The table of `make_table`, which writes it; rows of an upper bound stand at its end.

    Raises:
        ArtifactError: a file is missing or holds no records, or the counts per image of a record
            are missing or damaged.
    """
    scored = in_order(read_scored(records))
    steps = steps_of(scored)
    numbers = [
        step.columns() | _numbers(entry.record) for step, entry in zip(steps, scored, strict=True)
    ]
    rows = [entry.record for entry in scored]
    return table_texts(lay_out(rows, steps), csv_text(numbers))


def table_texts(table: Table, numbers: str) -> Texts:
    """A table in all its forms.

    Args:
        table: what Markdown and HTML show.
        numbers: the CSV.
    """
    return {"md": markdown(table), "csv": numbers, "html": html_page(table)}


def write_table(out_dir: Path, stem: str, texts: Texts) -> list[Path]:
    """Write ``<stem>.md``, ``.csv`` and ``.html``.

    Args:
        texts: what `table_texts` gave.
    """
    paths = []
    for suffix, text in texts.items():
        paths.append(out_dir / f"{stem}.{suffix}")
        write_text(paths[-1], text)
    return paths


def markdown(table: Table) -> str:
    """The table, and the IoU of each class, as Markdown."""
    lines = [f"# {_escape(table.title)}", ""]
    lines += [*_grid(table.columns, _with_marks(table), table.headings), ""]
    if table.words:
        lines += [*(f"- {_escape(text)}" for text in table.words), ""]
    if table.class_rows:
        lines += [*_grid(table.class_columns, table.class_rows), ""]
    for grid in table.more:
        lines += [f"## {_escape(grid.title)}", "", *_grid(grid.columns, grid.rows), ""]
    return "\n".join(lines + [f"- {_escape(note)}" for note in table.notes]) + "\n"


def _with_marks(table: Table) -> list[list[str]]:
    """The rows with the best cells in bold."""
    return [
        [_bold(cell) if (i, j) in table.best else cell for j, cell in enumerate(row)]
        for i, row in enumerate(table.rows)
    ]


def _bold(cell: str) -> str:
    number, *rest = cell.split(" ", 1)
    return " ".join([f"**{number}**", *rest])


def _grid(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    headings: Mapping[int, str] | None = None,
) -> list[str]:
    rule = ["---"] + ["---:"] * (len(columns) - 1)
    lines = [_line(columns), "| " + " | ".join(rule) + " |"]
    for index, row in enumerate(rows):
        if headings and index in headings:
            lines.append(_line([f"**{headings[index]}**", *[""] * (len(columns) - 1)]))
        lines.append(_line(row))
    return lines


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_escape, cells)) + " |"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def csv_text(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as CSV; a column for each key that any row has."""
    buffer = io.StringIO()
    columns = dict.fromkeys(key for row in rows for key in row)
    writer = csv.DictWriter(buffer, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _numbers(record: Record) -> dict[str, object]:
    """All that a record says, in full precision."""

    def fields(*names: str) -> dict[str, object]:
        return {name: getattr(record, name) for name in names}

    background = record.background.model_dump() if record.background else {}
    return {
        "name": row_name(record),
        "title": product_title(record),
        **fields(
            "product",
            "protocol",
            "method",
            "supervision",
            "supervision_sign",
            "backbone",
            "run",
            "chain",
            "split",
        ),
        **fields("images", "images_without_truth", "truth", "truth_rule"),
        "mixture": record.mixture,
        "truth_digest": record.provenance.inputs.get("truth"),
        "tags_from_masks": record.tags_from_masks,
        "truth_warnings": "; ".join(record.truth_warnings),
        "tags": record.tag_quality.text if record.tag_quality else "as given",
        **{
            f"background_{name}": background.get(name)
            for name in ("rule", "value", "source", "criterion")
        },
        "crf": record.crf,
        "scales": " ".join(f"{scale:g}" for scale in record.scales),
        **fields("seed", "variant", "class_mean", "miou", "miou_low", "miou_high", "resamples"),
        "interval_covers": "" if record.miou_low is None else IMAGES,
        **fields("report_mean"),
        "report_classes": " ".join(record.report_classes),
        **fields("false_positive", "false_negative", "boundary_miou", "boundary_ratio"),
        **fields("precision", "recall", "pixel_accuracy", "coverage", "coverage_accuracy"),
        "weights": " ".join(f"{name}={digest}" for name, digest in record.weights.items()),
        "code": record.provenance.code,
        "commit": record.commit,
        **{f"iou {name}": value for name, value in record.iou.items()},
        **{f"precision {name}": value for name, value in record.precision_by_class.items()},
        **{f"recall {name}": value for name, value in record.recall_by_class.items()},
    }
