"""From records to rows of text: what a row is called, and how its numbers are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsss.config.base import UPPER_BOUND, Supervision, with_supervision
from wsss.config.score import CLASS_MEANS
from wsss.refine.registry import METHODS
from wsss.score.product import ProductName
from wsss.score.record import Background, Record


@dataclass(frozen=True)
class Grid:
    """A further table on the page."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


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
    more: tuple[Grid, ...] = ()
    """Further tables, below."""


NOTES = (
    "Percent. Precision: mean over the labels that were predicted; recall: over those in the "
    "truth.",
    "best: the background threshold that is best on the same truth, so an upper bound, no fair "
    "number. covered: share of the pixels of the train masks that are not 255.",
    "95 %: resampled images, one training. Between the 2.5th and the 97.5th percentile of the mIoU "
    "over draws of the images with replacement: the effect of other images, not of another seed. "
    "None at the best threshold.",
    "An empty cell is a number that does not apply, is not known or was not run.",
)
TAGS_FROM_MASKS = "Tags were read from pixel labels (data.tags: masks)."
SUPERVISION_SIGNS: Mapping[Supervision, str] = {"tags": "I", "masks": "F"}
SUPERVISED_NOTE = (
    f"Supervision F: {UPPER_BOUND}, trained on pixel labels. Such rows do not compare with rows of "
    "supervision I, which learned from tags of images."
)
_TITLES: dict[ProductName, str] = {
    "blob": "centred blob",
    "cam": "CAM",
    "affinity": "CAM + affinity",
    "seeds": "seed",
    "refiner_scores": "{method} scores",
    "masks": "pseudo mask",
    "refiner_prediction": "{method} prediction",
    "segmenter": "segmenter",
}


def product_title(record: Record) -> str:
    """What people call the product: ``CAM`` …; of an upper bound also that it is one."""
    method = METHODS[record.method].title if record.method in METHODS else record.method
    name = _TITLES[record.product].format(method=method)
    return with_supervision(name, record.supervision)


def row_name(record: Record) -> str:
    """What tells this row from the others: ``CAM, best threshold``, ``segmenter, CRF`` …"""
    parts = [product_title(record)]
    if record.at_best_threshold:
        parts.append("best threshold")
    if record.protocol.startswith("multi"):
        parts.append("multi-scale + flip")
    if record.protocol.endswith("_crf"):
        parts.append("CRF")
    return ", ".join(parts)


def title(records: Sequence[Record]) -> str:
    """Run, number of images of each split, weights."""
    runs = ", ".join(dict.fromkeys(r.run for r in records))
    images = dict.fromkeys((r.split, r.images) for r in records)
    splits = ", ".join(f"{count} {split} images" for split, count in images)
    used = dict.fromkeys(entry for r in records for entry in r.weights.items())
    weights = ", ".join(f"{Path(name).name} ({digest[:8]})" for name, digest in used)
    supervised = all(record.supervision == "masks" for record in records) and bool(records)
    named = with_supervision(runs, "masks" if supervised else "tags")
    return f"{named}: {splits}" + (f"; weights {weights}" if weights else "")


def lay_out(records: Sequence[Record]) -> Table:
    """Bring records into rows of text, percent with one decimal."""
    several_truths = len({record.truth_rule for record in records}) > 1
    supervised = any(record.supervision == "masks" for record in records)
    rows = [
        {
            "row": row_name(record),
            "supervision": SUPERVISION_SIGNS[record.supervision] if supervised else "",
            "split": record.split,
            "images": str(record.images),
            "truth": record.truth_rule if several_truths else "",
            "background": background_text(record.background),
            "CRF": "yes" if record.crf else "no",
            "scales": scales_text(record),
            "mIoU": percent(record.miou),
            "95 %, images": interval_text(record.miou_low, record.miou_high),
            "mean of report classes": percent(record.report_mean),
            "precision": percent(record.precision),
            "recall": percent(record.recall),
            "accuracy": percent(record.pixel_accuracy),
            "covered": percent(record.coverage),
            "accuracy there": percent(record.coverage_accuracy),
        }
        for record in records
    ]
    # Columns in which no row has anything only widen the table.
    columns = [name for name in next(iter(rows), {}) if any(row[name] for row in rows)]
    names = list(dict.fromkeys(name for record in records for name in record.iou))
    class_rows = tuple(
        (row_name(r), r.split, *(percent(r.iou.get(name)) for name in names)) for r in records
    )
    truths = dict.fromkeys(f"Truth of {r.split}: {r.truth}." for r in records)
    chains = dict.fromkeys(
        f"{product_title(r)}: {r.chain}." for r in records if r.product != "blob"
    )
    return Table(
        title=title(records),
        notes=(
            *tag_notes(records),
            *warnings(records),
            *([SUPERVISED_NOTE] if supervised else []),
            *class_mean_notes(records),
            *NOTES,
            *truths,
            "Chains. " + " ".join(chains),
        ),
        columns=tuple(columns),
        rows=tuple(tuple(row[name] for name in columns) for row in rows),
        class_columns=("IoU of", "split", *names),
        class_rows=class_rows,
    )


def class_mean_notes(records: Sequence[Record]) -> tuple[str, ...]:
    """Which labels the mean IoU of the records runs over, each rule once."""
    rules = dict.fromkeys(record.class_mean for record in records)
    return tuple(
        f"mIoU: mean over the labels {CLASS_MEANS[rule]}, background included." for rule in rules
    )


def warnings(records: Sequence[Record]) -> tuple[str, ...]:
    """Notes on tags from pixel labels, and on truths that do not fit the tags, each once."""
    texts = [f"WARNING. {TAGS_FROM_MASKS}" for record in records if record.tags_from_masks]
    texts += [f"WARNING. Truth of {r.split}: {w}." for r in records for w in r.truth_warnings]
    return tuple(dict.fromkeys(texts))


def tag_notes(records: Sequence[Record]) -> tuple[str, ...]:
    """What was done to the tags on purpose, each once."""
    return tuple(dict.fromkeys(r.tag_quality.text for r in records if r.tag_quality))


def percent(share: float | None) -> str:
    """``0.1234`` → ``12.3``; None → empty."""
    return "" if share is None else f"{100 * share:.1f}"


def interval_text(low: float | None, high: float | None) -> str:
    """``44.2–47.3``, percent; empty where there is none."""
    return "" if low is None or high is None else f"{percent(low)}–{percent(high)}"


def background_text(background: Background | None) -> str:
    """``power 1``, ``> 0.37 (best)``, ``refiner`` …; empty where no background rule was applied."""
    if background is None or background.rule == "refiner":
        return "" if background is None else "refiner"
    value = f"{background.value:g}"
    text = f"power {value}" if background.rule == "power" else f"> {value}"
    return text if background.source == "config" else f"{text} (best)"


def scales_text(record: Record) -> str:
    """``0.75, 1, 1.25 + flip``."""
    flip = " + flip" if record.protocol.startswith("multi") else ""
    return ", ".join(f"{scale:g}" for scale in record.scales) + flip
