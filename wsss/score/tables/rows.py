"""From records to rows of text: what a row is called, and how its numbers are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsss.score.record import Record


@dataclass(frozen=True)
class Published:
    """A published number, to stand beside ours."""

    row: str
    """Row that it stands beside, as `row_name` says it."""
    split: str
    miou: float
    """In [0, 1]."""
    source: str
    """Paper, and table or page."""


@dataclass(frozen=True)
class Table:
    """Cells as text, ready to be laid out; the first column names the row."""

    title: str
    notes: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    class_columns: tuple[str, ...]
    class_rows: tuple[tuple[str, ...], ...]
    """A second table; may be empty."""
    class_title: str = "IoU of each class"


NOTES = (
    "Percent. mIoU: mean over the labels, background included, that occur in the truth or in the "
    "prediction; precision: over those that were predicted; recall: over those in the truth.",
    "best: the background threshold that is best on the same truth, so an upper bound, no fair "
    "number. covered: share of the pixels of the train masks that are not 255.",
    "95 %: between the 2.5th and the 97.5th percentile of the mIoU over draws of the images with "
    "replacement; what other images, not another seed, would change. None at the best threshold.",
    "An empty cell is a number that does not apply, is not known or was not run.",
)
PRODUCTS = {
    "CAM": "cam",
    "CAM + affinity": "affinity",
    "seed": "seeds",
    "pseudo mask": "masks",
    "segmenter": "predictions",
    "centred blob": "blob",
}


def row_name(record: Record) -> str:
    """What tells this row from the others: ``CAM, best threshold``, ``segmenter, CRF`` …"""
    parts = [record.row]
    if record.background and record.background.source != "config":
        parts.append("best threshold")
    if record.flip or record.scales != (1.0,):
        parts.append("multi-scale + flip" if record.flip else "multi-scale")
    if record.crf and record.stage != "masks":
        parts.append("CRF")
    return ", ".join(parts)


def product_of(record: Record) -> str:
    """What was scored, as `wsss score` calls it: ``cam``, ``masks``, ``refiner`` …"""
    if record.stage == "refine":
        return "refiner" if record.row.endswith(" prediction") else "refined"
    return PRODUCTS[record.row]


def protocol_of(record: Record) -> str:
    """How it was predicted: ``single``, ``multi`` (scales and flip), ``single_crf``, ``multi_crf``.

    Masks and seeds are ``single`` whether or not a CRF made them.
    """
    name = "multi" if record.flip or record.scales != (1.0,) else "single"
    return f"{name}_crf" if record.crf and record.stage != "masks" else name


def title(records: Sequence[Record]) -> str:
    """Run, number of images of each split, weights."""
    runs = ", ".join(dict.fromkeys(r.run for r in records))
    images = dict.fromkeys((r.split, r.images) for r in records)
    splits = ", ".join(f"{count} {split} images" for split, count in images)
    used = dict.fromkeys(entry for r in records for entry in r.weights.items())
    weights = ", ".join(f"{Path(name).name} ({digest[:8]})" for name, digest in used)
    return f"{runs}: {splits}" + (f"; weights {weights}" if weights else "")


def lay_out(records: Sequence[Record], published: Sequence[Published] = ()) -> Table:
    """Bring records into rows of text, percent with one decimal."""
    columns = (
        "row", "split", "images", "background", "CRF", "scales", "mIoU", "95 %",
        "mean of report classes", "precision", "recall", "accuracy", "covered", "accuracy there",
        "published mIoU", "source",
    )  # fmt: skip
    rows = []
    for record in records:
        beside = find_published(record, published)
        rows.append(
            (
                row_name(record),
                record.split,
                str(record.images),
                background_text(record),
                "yes" if record.crf else "no",
                scales_text(record),
                percent(record.miou),
                interval_text(record.miou_low, record.miou_high),
                percent(record.report_mean),
                percent(record.precision),
                percent(record.recall),
                percent(record.pixel_accuracy),
                percent(record.coverage),
                percent(record.coverage_accuracy),
                percent(beside.miou if beside else None),
                beside.source if beside else "",
            )
        )
    # Columns in which no row has anything only widen the table; the published one is kept.
    kept = [
        place
        for place, name in enumerate(columns)
        if name == "published mIoU" or any(row[place] for row in rows)
    ]
    names = list(dict.fromkeys(name for record in records for name in record.iou))
    class_rows = tuple(
        (row_name(r), r.split, *(percent(r.iou.get(name)) for name in names)) for r in records
    )
    truths = dict.fromkeys(f"Truth of {r.split}: {r.truth}." for r in records)
    chains = dict.fromkeys(f"{r.row}: {r.chain}." for r in records if r.stage != "score")
    return Table(
        title=title(records),
        notes=(*NOTES, *truths, "Chains. " + " ".join(chains)),
        columns=tuple(columns[place] for place in kept),
        rows=tuple(tuple(row[place] for place in kept) for row in rows),
        class_columns=("IoU of", "split", *names),
        class_rows=class_rows,
    )


def percent(share: float | None) -> str:
    """``0.1234`` → ``12.3``; None → empty."""
    return "" if share is None else f"{100 * share:.1f}"


def interval_text(low: float | None, high: float | None) -> str:
    """``44.2–47.3``, percent; empty where there is none."""
    return "" if low is None or high is None else f"{percent(low)}–{percent(high)}"


def background_text(record: Record) -> str:
    """``power 1``, ``> 0.37 (best)``, ``own`` …; empty where background is a label like others."""
    if record.background is None:
        return ""
    if record.background.rule == "own":
        return "own"
    value = f"{record.background.value:g}"
    text = f"power {value}" if record.background.rule == "power" else f"> {value}"
    return text if record.background.source == "config" else f"{text} (best)"


def scales_text(record: Record) -> str:
    """``0.75, 1, 1.25 + flip``."""
    return ", ".join(f"{scale:g}" for scale in record.scales) + (" + flip" if record.flip else "")


def find_published(record: Record, published: Sequence[Published]) -> Published | None:
    """The published number that stands beside a row, if any."""
    wanted = (row_name(record), record.split)
    return next((entry for entry in published if (entry.row, entry.split) == wanted), None)
