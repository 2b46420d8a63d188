"""The tables of a run for the terminal, from their CSVs."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence, Set
from pathlib import Path
from typing import cast

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from wsss.artifacts.errors import ArtifactError
from wsss.config.base import with_supervision
from wsss.config.score import CLASS_MEANS
from wsss.score.product import ProductName, Protocol
from wsss.score.tables.layout import (
    CHANGE,
    Line,
    Score,
    change_text,
    has_changes,
    is_best,
    lines_of,
    splits_of,
)
from wsss.score.tables.rows import SAM_NOTE, TAGS_FROM_MASKS, percent, supervision_notes
from wsss.score.tables.steps import Kind, Step, words

WIDTH = 100
_CHANGES = ("change", "change_low", "change_high")
_PICTURES = ("*.png", "*.svg")


def print_table(path: Path, console: Console | None = None) -> None:
    """Print a ``table.csv``: a row per product, with its difference to the row before.

    Args:
        path: the CSV of `wsss.score.tables.write.make_table`.
        console: where to print; default: standard output. Rows have at most about 80 columns.

    Raises:
        ArtifactError: the file is missing or is no such table.
    """
    console = console or _console()
    rows = _rows(path)
    if rows and "miou" not in rows[0]:
        raise ArtifactError(f"{path}: is no score table; pass the table.csv of `wsss table`")
    if rows and "block" not in rows[0]:
        raise ArtifactError(f"{path}: is of an older version; make it again with `wsss table`")
    console.print(Text(_title(rows), style="bold"))
    _print_lines(console, lines_of(map(_score, rows)))
    report = [row for row in rows if row["report_mean"]]
    if report:
        console.print(Text(f"\nMean IoU of {report[0]['report_classes']} alone", style="bold"))
        alone = [row | {"miou": row["report_mean"]} | dict.fromkeys(_CHANGES, "") for row in report]
        _print_lines(console, lines_of(map(_score, alone)))
    warnings = ((row["split"], row.get("truth_warnings")) for row in rows)
    texts = [
        f"WARNING. Truth of {split}: {text}." for split, text in dict.fromkeys(warnings) if text
    ]
    if any(row.get("tags_from_masks") == "True" for row in rows):
        texts.append(f"WARNING. {TAGS_FROM_MASKS}")
    for text in texts:
        console.print(Text(text, style="bold red"))
    kinds = {row.get("supervision", "tags") for row in rows}
    for text in supervision_notes(kinds, (row.get("mixture", "") for row in rows)):
        console.print(Text(text, style="bold"))
    if any(row.get("supervision_sign", "").endswith("+SAM") for row in rows):
        console.print(Text(SAM_NOTE, style="bold"))
    tags = dict.fromkeys(row["tags"] for row in rows if row.get("tags", "as given") != "as given")
    rules = dict.fromkeys(row["class_mean"] for row in rows if row.get("class_mean"))
    means = [
        f"mIoU in percent: mean over the labels {CLASS_MEANS[rule]}, background included."  # type: ignore[index]
        for rule in rules
    ]
    changed = any(row["change"] for row in rows)
    console.print()
    for text in [*tags, *means, *words(map(_kind, rows), has_changes=changed)]:
        console.print(Text(text, style="dim"))


def _print_lines(console: Console, lines: Sequence[Line]) -> None:
    """Rows as text in columns of fixed width; block titles stand above their rows.

    On a screen that is too narrow the changes stand without their intervals.
    """
    splits = splits_of(lines)
    changes = {split: has_changes(lines, split) for split in splits}
    heads = [head for split in splits for head in ([split, CHANGE] if changes[split] else [split])]
    first = max((len(line.label) for line in lines), default=0) + 1
    for with_interval in (True, False):
        cells = [
            [
                text
                for split in splits
                for text in _cells(line.scores.get(split), changes[split], with_interval)
            ]
            for line in lines
        ]
        widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
        if first + sum(widths) + sum(1 if h == CHANGE else 2 for h in heads) <= console.width:
            break
    columns = list(zip(heads, widths, strict=True))
    console.print()
    _print_row(console, "", heads, columns, first, set())
    block = ""
    for line, texts in zip(lines, cells, strict=True):
        if line.block != block:
            block = line.block
            console.print(Text(block, style="bold underline"))
        best = {split for split in splits if is_best(line, split, lines)}
        _print_row(console, f" {line.label}", texts, columns, first, best)


def _print_row(
    console: Console,
    label: str,
    texts: Sequence[str],
    columns: Sequence[tuple[str, int]],
    first: int,
    best: Set[str],
) -> None:
    row = Text(f"{label:<{first}}")
    for text, (head, width) in zip(texts, columns, strict=True):
        is_change = head == CHANGE
        row.append(" " if is_change else "  ")
        row.append(
            f"{text:<{width}}" if is_change else f"{text:>{width}}",
            style="bold" if head in best else "dim" if is_change else "",
        )
    row.rstrip()
    console.print(row, soft_wrap=True)


def _cells(score: Score | None, has_change: bool, with_interval: bool) -> list[str]:
    cells = [percent(score.miou) if score else ""]
    if has_change:
        text = change_text(score.step) if score else ""
        cells.append(text if with_interval else text.split(" ")[0])
    return cells


def _score(row: dict[str, str]) -> Score:
    """A row of the CSV."""
    numbers = {name: _number(row[name]) for name in (*_CHANGES, "miou", "miou_low", "miou_high")}
    change, low, high = (numbers[name] for name in _CHANGES)
    step = Step(row["block"], row["label"], change, low, high, row["changed_from"])
    return Score(row["split"], step, numbers["miou"], numbers["miou_low"], numbers["miou_high"])


def print_classes(folder: Path, console: Console | None = None) -> None:
    """Print each class of each row: its errors, and how it fares alone and with others.

    Args:
        folder: holds ``classes.csv`` and ``pairs.csv`` of `wsss.score.tables.classes`.
        console: where to print; default: standard output.

    Raises:
        ArtifactError: a file is missing.
    """
    console = console or _console()
    pairs = _by_row(_rows(folder / "pairs.csv"))
    numbers = {"IoU": "iou", "boundary": "boundary_iou", "false pos.": "false_positive",
               "false neg.": "false_negative"}  # fmt: skip
    sets = ("alone", "with others")
    for (row, split), lines in _by_row(_rows(folder / "classes.csv")).items():
        table = Table(title=f"{row}, {split}", title_justify="left", box=SIMPLE_HEAD,
                      collapse_padding=True)  # fmt: skip
        table.add_column("")
        for name in (*numbers, *sets):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("most confused with")
        for line in lines:
            of_class = [p for p in pairs.get((row, split), ()) if p["class"] == line["class"]]
            subsets = {p["images_tagged"]: _subset(p) for p in of_class}
            cells = [line["class"], *(_percent(line[column]) for column in numbers.values())]
            cells += [subsets.get(name, "") for name in sets]
            table.add_row(*map(Text, [*cells, _most_confused(of_class)]))
        console.print(table)
    console.print(
        "Percent. IoU + false pos. + false neg. = 100. alone, with others: IoU over the images "
        "tagged so, in brackets their number. All partners: pairs.html.",
        style="dim",
    )


def print_results(folder: Path, *, classes: bool = False) -> None:
    """Print a run's table, and the paths of its pictures, masks and report.

    Of several runs, such as a sweep, print the table that compares them, and their folders.

    Args:
        folder: results of a run, e.g. ``results/demo``.

    Raises:
        ArtifactError: the folder holds no results.
    """
    console = _console()
    table = folder / "tables" / "table.csv"
    pictures = sorted(path for kind in _PICTURES for path in (folder / "pictures").glob(kind))
    sweep, runs = table.with_name("sweep.csv"), dict[Path, None]()
    if sweep.is_file():
        from rich.markdown import Markdown

        console.print(Markdown(sweep.with_suffix(".md").read_text(encoding="utf-8")))
        # Other rows are means, or what all runs share.
        runs = dict.fromkeys(folder / row["run"] for row in _rows(sweep))
    if table.is_file():
        print_table(table, console)
        if classes:
            print_classes(table.parent, console)
    elif pictures and not runs:
        console.print("No table: there is no ground truth to score against (data.masks).")
    elif not runs:
        raise ArtifactError(
            f"{folder}: holds no results; run snakemake first, or pass results/<name> or the "
            "folder that `wsss photos` wrote"
        )
    products = {
        "page": [folder / "index.html"],
        "report": [folder / "report.html"],
        "table": [of.with_suffix(end) for of in (sweep, table) for end in (".html", ".md", ".csv")],
        "classes": [table.with_name(f"{name}.html") for name in ("classes", "pairs")],
        "runs": runs,
        "pictures": pictures,
        "masks": sorted((folder / "masks").glob("*/png")),
    }
    for name, paths in products.items():
        for path in filter(Path.exists, paths):
            # A path is one word: soft_wrap keeps a terminal's copy and click whole.
            console.print(Text(f"{name:<9} {path}"), soft_wrap=True)


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such table; run `wsss table` first") from None


def _by_row(lines: list[dict[str, str]]) -> dict[tuple[str, str], list[dict[str, str]]]:
    rows: dict[tuple[str, str], list[dict[str, str]]] = {}
    for line in lines:
        rows.setdefault((line["row"], line["split"]), []).append(line)
    return rows


def _subset(line: dict[str, str]) -> str:
    return f"{_percent(line['iou'])} ({line['images']})" if line["images"] != "0" else ""


def _most_confused(lines: list[dict[str, str]]) -> str:
    """``boat 12.3``: the partner that most true pixels are taken for."""
    shares = {p["partner"]: float(p["predicted_as_partner"]) for p in lines
              if p.get("predicted_as_partner")}  # fmt: skip
    name = max(shares, key=lambda partner: shares[partner], default="")
    return f"{name} {100 * shares[name]:.1f}" if name and shares[name] else ""


def _console() -> Console:
    detected = Console()
    return Console(width=min(detected.width, WIDTH) if detected.is_terminal else WIDTH)


def _title(rows: list[dict[str, str]]) -> str:
    """Run, and number of images of each split."""
    runs = ", ".join(dict.fromkeys(row["run"] for row in rows))
    supervised = rows and all(row.get("supervision") == "masks" for row in rows)
    images = dict.fromkeys(f"{row['images']} {row['split']} images" for row in rows)
    return f"{with_supervision(runs, 'masks' if supervised else 'tags')}: {', '.join(images)}"


def _kind(row: dict[str, str]) -> Kind:
    product, protocol = cast(ProductName, row["product"]), cast(Protocol, row["protocol"])
    scales = ", ".join(row["scales"].split())
    is_chosen = row["background_source"] not in ("", "config")
    return Kind(row["label"], product, protocol, scales, row["crf"] == "True", is_chosen)


def _number(text: str) -> float | None:
    return float(text) if text else None


def _percent(text: str) -> str:
    value = float(text) if text else math.nan
    return "" if math.isnan(value) else f"{100 * value:.1f}"
