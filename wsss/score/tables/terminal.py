"""The tables of a run for the terminal, from their CSVs."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from wsss.artifacts.errors import ArtifactError
from wsss.config.base import with_supervision
from wsss.config.score import CLASS_MEANS
from wsss.score.metrics.bootstrap import IMAGES
from wsss.score.record import Background
from wsss.score.tables.rows import SUPERVISED_NOTE, TAGS_FROM_MASKS, background_text

WIDTH = 100
_PICTURES = ("*.png", "*.svg")


def print_table(path: Path, console: Console | None = None) -> None:
    """Print a ``table.csv``, at most 100 columns wide.

    Args:
        path: the CSV of `wsss.score.tables.write.make_table`.
        console: where to print; default: standard output.

    Raises:
        ArtifactError: the file is missing or is no such table.
    """
    console = console or _console()
    rows = _rows(path)
    if rows and "miou" not in rows[0]:
        raise ArtifactError(f"{path}: is no score table; pass the table.csv of `wsss table`")
    report = any(row["report_mean"] for row in rows)
    table = Table(title=_title(rows), title_justify="left", box=SIMPLE_HEAD, collapse_padding=True)
    for name in ("", "split", "images", "background", "CRF"):
        table.add_column(name, justify="right" if name == "images" else "left")
    for name in ("mIoU", "95 %", *(["report"] if report else []), "prec.", "recall", "acc."):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        numbers = [row["report_mean"]] if report else []
        numbers += [row["precision"], row["recall"], row["pixel_accuracy"]]
        crf = "yes" if row["crf"] == "True" else "no"
        flip = ", multi-scale + flip" if row["protocol"].startswith("multi") else ""
        cells = [row["title"] + flip, row["split"], row["images"], _background(row), crf]
        ends = [_percent(row.get(end, "")) for end in ("miou_low", "miou_high")]
        cells += [_percent(row["miou"]), "–".join(filter(None, ends))]
        table.add_row(*map(Text, [*cells, *map(_percent, numbers)]))
    console.print(table)
    if any(row.get("supervision") == "masks" for row in rows):
        console.print(Text(SUPERVISED_NOTE, style="bold"))
    console.print("Percent. best: threshold chosen on the same truth, an upper bound.", style="dim")
    if any(row.get("tags_from_masks") == "True" for row in rows):
        console.print(Text(f"WARNING. {TAGS_FROM_MASKS}", style="bold red"))
    rules = dict.fromkeys(row["class_mean"] for row in rows if row.get("class_mean"))
    means = (f"mIoU: mean over labels {CLASS_MEANS[rule]}." for rule in rules)  # type: ignore[index]
    console.print(" ".join([*means, f"95 %: {IMAGES}."]), style="dim")
    warnings = ((row["split"], row.get("truth_warnings")) for row in rows)
    for split, text in dict.fromkeys(warnings):
        if text:
            console.print(Text(f"WARNING. Truth of {split}: {text}.", style="bold red"))
    if report:
        console.print(f"report: mean IoU of {rows[0]['report_classes']}.", style="dim")


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

    Args:
        folder: results of a run, e.g. ``results/demo``.
        classes: print each class, too.

    Raises:
        ArtifactError: the folder holds no results.
    """
    console = _console()
    table = folder / "tables" / "table.csv"
    pictures = sorted(path for kind in _PICTURES for path in (folder / "pictures").glob(kind))
    if table.is_file():
        print_table(table, console)
        if classes:
            print_classes(table.parent, console)
    elif pictures:
        console.print("No table: there is no ground truth to score against (data.masks).")
    else:
        raise ArtifactError(
            f"{folder}: holds no results; run snakemake first, or pass results/<name>"
        )
    products = {
        "page": [folder / "index.html"],
        "report": [folder / "report.html"],
        "table": [table.with_suffix(".html"), table.with_suffix(".md"), table],
        "classes": [table.with_name(f"{name}.html") for name in ("classes", "pairs")],
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
    runs = ", ".join(dict.fromkeys(row["run"] for row in rows))
    supervised = rows and all(row.get("supervision") == "masks" for row in rows)
    return with_supervision(runs, "masks" if supervised else "tags")


def _background(row: dict[str, str]) -> str:
    names = ("rule", "value", "source")
    stored = {name: row[f"background_{name}"] for name in names}
    return background_text(Background.model_validate(stored) if stored["rule"] else None)


def _percent(text: str) -> str:
    value = float(text) if text else math.nan
    return "" if math.isnan(value) else f"{100 * value:.1f}"
