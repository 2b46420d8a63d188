"""The table of a run for the terminal, from its CSV."""

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
from wsss.score.record import Background
from wsss.score.tables.rows import SUPERVISED_NOTE, background_text

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
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such table; run `wsss table` first") from None
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
    warnings = ((row["split"], row.get("truth_warnings")) for row in rows)
    for split, text in dict.fromkeys(warnings):
        if text:
            console.print(Text(f"WARNING. Truth of {split}: {text}.", style="bold red"))
    if report:
        console.print(f"report: mean IoU of {rows[0]['report_classes']}.", style="dim")


def print_results(folder: Path) -> None:
    """Print a run's table, and the paths of its pictures, masks and report.

    Args:
        folder: results of a run, e.g. ``results/demo``.

    Raises:
        ArtifactError: the folder holds no results.
    """
    console = _console()
    table = folder / "tables" / "table.csv"
    pictures = sorted(path for kind in _PICTURES for path in (folder / "pictures").glob(kind))
    if table.is_file():
        print_table(table, console)
    elif pictures:
        console.print("No table: there is no ground truth to score against (data.masks).")
    else:
        raise ArtifactError(
            f"{folder}: holds no results; run snakemake first, or pass results/<name>"
        )
    products = {
        "report": [folder / "report.html"],
        "table": [table.with_suffix(".html"), table.with_suffix(".md"), table],
        "pictures": pictures,
        "masks": sorted((folder / "masks").glob("*/png")),
    }
    for name, paths in products.items():
        for path in filter(Path.exists, paths):
            # A path is one word: soft_wrap keeps a terminal's copy and click whole.
            console.print(Text(f"{name:<9} {path}"), soft_wrap=True)


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
