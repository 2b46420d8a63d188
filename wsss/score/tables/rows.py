"""From records to rows of text: what a row is called, and how its numbers are written."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wsss.config.base import MIXED, UPPER_BOUND, with_supervision
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
    is_shaded: bool = True
    """Whether cells are shaded by their number, a percentage."""


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
    headings: Mapping[int, str] = field(default_factory=dict)
    """What stands above a row, by its index."""
    best: frozenset[tuple[int, int]] = frozenset()
    """Row and column of the cells in bold."""
    words: tuple[str, ...] = ()
    """What rows and columns mean, directly below the first table."""


TAGS_FROM_MASKS = "Tags were read from pixel labels (data.tags: masks)."
SUPERVISED_NOTE = (
    f"Supervision F: {UPPER_BOUND}, trained on pixel labels. Such rows do not compare with rows of "
    "supervision I, which learned from tags of images."
)
MIXED_NOTE = (
    f"Supervision M: {MIXED}. The segmenter learned from pixel labels of some training images. "
    "Such rows are not weakly supervised, and do not compare with rows of supervision I."
)
SAM_NOTE = (
    "Supervision +SAM: mask proposals of SAM, a network trained on masks of other images, took "
    "part. Such rows do not compare with rows without it."
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


def product_name(record: Record) -> str:
    """What people call the product: ``CAM`` …"""
    method = METHODS[record.method].title if record.method in METHODS else record.method
    return _TITLES[record.product].format(method=method)


def product_title(record: Record) -> str:
    """The same; also that pixel labels taught it, if they did."""
    return with_supervision(product_name(record), record.supervision)


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
    """Run, and number of images of each split."""
    runs = ", ".join(dict.fromkeys(r.run for r in records))
    images = dict.fromkeys((r.split, r.images) for r in records)
    splits = ", ".join(f"{count} {split} images" for split, count in images)
    supervised = all(record.supervision == "masks" for record in records) and bool(records)
    return f"{with_supervision(runs, 'masks' if supervised else 'tags')}: {splits}"


def weights_note(records: Sequence[Record]) -> str:
    """The weights behind the records, with the first digits of their digests."""
    used = dict.fromkeys(entry for r in records for entry in r.weights.items())
    weights = ", ".join(f"{Path(name).name} ({digest[:8]})" for name, digest in used)
    return f"Weights: {weights}." if weights else ""


def supervision_notes(kinds: Collection[str], mixtures: Iterable[str]) -> tuple[str, ...]:
    """Notes on rows that pixel labels taught.

    Args:
        kinds: the supervision of each row.
        mixtures: `Record.mixture` of each row.
    """
    upper = [SUPERVISED_NOTE] if "masks" in kinds else []
    if "mixed" not in kinds:
        return tuple(upper)
    taught = "; ".join(dict.fromkeys(filter(None, mixtures)))
    return (*upper, f"{MIXED_NOTE} It learned from {taught}.")


def sam_notes(records: Iterable[Record]) -> tuple[str, ...]:
    """A note if mask proposals of SAM took part in any of them."""
    return (SAM_NOTE,) if any(record.uses_sam for record in records) else ()


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
