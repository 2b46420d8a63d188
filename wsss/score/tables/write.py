"""One table of all rows: Markdown, CSV with every number, HTML for the report."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from wsss.artifacts.atomic import write_text
from wsss.score.record import Record, read_records
from wsss.score.tables.html import html_page
from wsss.score.tables.rows import Published, Table, find_published, lay_out, row_name
from wsss.score.tables.terminal import print_results, print_table

__all__ = ["make_table", "markdown", "print_results", "print_table"]


def make_table(
    records: Sequence[Path], out_dir: Path, published: Sequence[Published] = ()
) -> list[Path]:
    """Write ``table.md``, ``table.csv`` (full precision) and ``table.html`` (self-contained).

    Args:
        records: JSON files of the score stage, in the order of the rows.
        out_dir: folder to write to.
        published: published numbers; a row without one keeps an empty cell.

    Returns:
        The files written.

    Raises:
        ArtifactError: a file is missing or holds no records.
    """
    found = read_records(records)
    return write_table(out_dir, "table", lay_out(found, published), _csv(found, published))


def write_table(out_dir: Path, stem: str, table: Table, numbers: str) -> list[Path]:
    """Write ``<stem>.md``, ``.csv`` and ``.html``.

    Args:
        out_dir: folder to write to.
        stem: of the names.
        table: what Markdown and HTML show.
        numbers: the CSV.
    """
    texts = {"md": markdown(table), "csv": numbers, "html": html_page(table)}
    paths = []
    for suffix, text in texts.items():
        paths.append(out_dir / f"{stem}.{suffix}")
        write_text(paths[-1], text)
    return paths


def markdown(table: Table) -> str:
    """The table, and the IoU of each class, as Markdown."""
    lines = [f"# {_escape(table.title)}", ""]
    lines += [*_grid(table.columns, table.rows), ""]
    if table.class_rows:
        lines += [*_grid(table.class_columns, table.class_rows), ""]
    return "\n".join(lines + [f"- {_escape(note)}" for note in table.notes]) + "\n"


def _grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---"] + ["---:"] * (len(columns) - 1)
    lines = [columns, rule, *rows]
    return ["| " + " | ".join(map(_escape, line)) + " |" for line in lines]


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _csv(records: Sequence[Record], published: Sequence[Published]) -> str:
    names = list(dict.fromkeys(name for record in records for name in record.iou))
    lines = []
    for record in records:
        beside = find_published(record, published)
        background = record.background
        lines.append(
            {
                "name": row_name(record),
                **{key: getattr(record, key) for key in ("row", "run", "chain", "stage", "split")},
                "images": record.images,
                "images_without_truth": record.images_without_truth,
                "truth": record.truth,
                "background_rule": background.rule if background else None,
                "background_value": background.value if background else None,
                "background_source": background.source if background else None,
                "background_criterion": background.criterion if background else None,
                "crf": record.crf,
                "scales": " ".join(f"{scale:g}" for scale in record.scales),
                **{key: getattr(record, key) for key in ("flip", "seed", "variant", "miou")},
                **{key: getattr(record, key) for key in ("miou_low", "miou_high", "resamples")},
                "report_mean": record.report_mean,
                "report_classes": " ".join(record.report_classes),
                **{key: getattr(record, key) for key in ("precision", "recall", "pixel_accuracy")},
                "coverage": record.coverage,
                "coverage_accuracy": record.coverage_accuracy,
                "published_miou": beside.miou if beside else None,
                "published_source": beside.source if beside else None,
                "weights": " ".join(f"{name}={digest}" for name, digest in record.weights.items()),
                "code": record.provenance.code,
                "commit": record.commit,
                **{f"iou {name}": record.iou.get(name) for name in names},
                **{f"precision {name}": record.precision_by_class.get(name) for name in names},
                **{f"recall {name}": record.recall_by_class.get(name) for name in names},
            }
        )
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(lines[0]) if lines else ["name"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()
