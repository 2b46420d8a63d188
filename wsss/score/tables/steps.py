"""The steps of a chain: which rows compare, and how much each changes the mIoU of the row before.

Rows that were given the tags of an image stand apart from those that were not. So do predictions
with and without a CRF, and rows whose threshold was chosen on the truth. Within such a block each
row is a step on from the row before. Both were scored on the same images, so the interval of the
difference is paired: both see the same draws (`wsss.score.metrics.bootstrap`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from wsss.config.base import LEARNED_FROM, with_supervision
from wsss.score.image_counts_file import Scored, read_image_counts
from wsss.score.metrics.bootstrap import IMAGES_OF_PAIRS, Draws, percentile_interval, resampled
from wsss.score.product import PRODUCTS, ProductName, Protocol
from wsss.score.record import Record
from wsss.score.tables.rows import product_name

WITH_TAGS, WITHOUT, WITHOUT_CRF, CHOSEN = BLOCKS = (
    "With the image's tags",
    "Without tags",
    "Without tags, after a CRF",
    "Threshold chosen on the truth",
)
"""Rows of one block compare."""
_PROTOCOLS: tuple[Protocol, ...] = ("single", "multi", "single_crf", "multi_crf")
_WORDS: dict[ProductName, str] = {
    "blob": "{label}: a blob in the middle, whatever the image shows; a method must beat it.",
    "cam": "CAM: class activation map, where the frozen CLIP sees a tag.",
    "affinity": "CAM + affinity: the CAM, spread along the attention of CLIP.",
    "seeds": "{label}: hard labels made from the CAMs, which the refiner learns from.",
    "refiner_scores": "{label}: the trained refiner, told which tags the image has.",
    "masks": "{label}: labels made from the class scores; a segmenter learns from them.",
    "refiner_prediction": "{label}: the trained refiner, told no tags.",
    "segmenter": "{label}: a network that was trained on the masks and is told no tags.",
}
_IOU = "IoU: pixels that prediction and truth share, as a share of all that either has; percent."
_CRF = "CRF: conditional random field, which moves contours to edges of the image."
_MULTI = "multi: mean over the image and its mirror image{scales}."
_OF_CLIP = "CLIP's tags"
_CLIP_TAGS = f"{_OF_CLIP}: CLIP itself said which classes an image shows; nobody told it."
_CHOSEN = f"{CHOSEN}: one background for all images, the constant that is best for this very truth."
_REPLACES = (
    "A chosen threshold replaces the background that the refiner gives each image, which can do "
    "better."
)
_CHANGE = (
    "change: points of mIoU more than the row above it in the block; in brackets 95 % of the "
    f"differences ({IMAGES_OF_PAIRS})."
)
_BEST = "Bold: the best of the block."


@dataclass(frozen=True)
class Step:
    """A scored row, and its difference to the row before. Shares are in [0, 1]."""

    block: str
    label: str
    """Names it within its block; the same for all splits."""
    change: float | None = None
    change_low: float | None = None
    change_high: float | None = None
    """Ends of the 95 % interval; None without counts per image."""
    changed_from: str = ""
    """Label of the row before; empty where there is none, or none to compare with."""

    def columns(self) -> dict[str, object]:
        """As columns of a CSV."""
        covers = IMAGES_OF_PAIRS if self.change_low is not None else ""
        return asdict(self) | {"change_covers": covers}


class Kind(NamedTuple):
    """What a row is; its words are explained below the table."""

    label: str
    product: ProductName
    protocol: Protocol
    scales: str
    has_crf: bool
    is_chosen: bool
    """Whether its threshold was chosen on the truth."""


def in_order(scored: Sequence[Scored]) -> list[Scored]:
    """Rows by block, and by their place in the chain."""
    products = list(PRODUCTS)

    def position(entry: Scored) -> tuple[object, ...]:
        record = entry.record
        return (
            LEARNED_FROM.index(record.supervision),
            BLOCKS.index(_block(record)),
            products.index(record.product),
            _PROTOCOLS.index(record.protocol),
        )

    return sorted(scored, key=position)


def steps_of(scored: Sequence[Scored]) -> list[Step]:
    """The step of each record, in the order of `in_order`.

    Args:
        scored: records with their files, next to which the counts per image lie.

    Raises:
        ArtifactError: the counts per image of a record are missing or damaged.
    """
    records = [entry.record for entry in scored]
    blocks = [with_supervision(_block(record), record.supervision) for record in records]
    labels = [_label(record, records) for record in records]
    last: dict[tuple[str, str], int] = {}
    draws = _AllDraws(scored)
    steps = []
    for index, record in enumerate(records):
        before = last.get((blocks[index], record.split))
        last[blocks[index], record.split] = index
        if before is None or record.at_best_threshold or labels[before] == labels[index]:
            steps.append(Step(blocks[index], labels[index]))
        else:
            change, low, high = draws.change(index, before)
            source = "" if change is None else labels[before]
            steps.append(Step(blocks[index], labels[index], change, low, high, source))
    return steps


def kind_of(record: Record, step: Step) -> Kind:
    """What a record is."""
    return Kind(
        step.label,
        record.product,
        record.protocol,
        ", ".join(f"{scale:g}" for scale in record.scales),
        record.crf,
        record.at_best_threshold,
    )


def words(kinds: Iterable[Kind], *, has_changes: bool) -> list[str]:
    """What the rows and columns of a table mean, each once.

    Args:
        has_changes: whether a row has a difference to the row before.
    """
    sentences = dict.fromkeys(sentence for kind in kinds for sentence in _explained(kind))
    return [_IOU, *sentences, *([_CHANGE] if has_changes else []), _BEST]


class _AllDraws:
    """The mIoU of records in each draw of the images, read when a difference asks for it."""

    def __init__(self, scored: Sequence[Scored]) -> None:
        self._scored = scored
        self._draws: dict[int, tuple[tuple[str, ...], Draws]] = {}

    def change(self, index: int, before: int) -> tuple[float | None, float | None, float | None]:
        """The difference of the mIoU, and the ends of its interval."""
        record, other = (self._scored[i].record for i in (index, before))
        if record.miou is None or other.miou is None or not _compare(record, other):
            return None, None, None
        value = record.miou - other.miou
        counted = record.image_counts is not None and other.image_counts is not None
        if not (counted and record.resamples and other.resamples == record.resamples):
            return value, None, None
        (ids, draws), (other_ids, other_draws) = self._of(index), self._of(before)
        ends = percentile_interval(draws - other_draws) if ids == other_ids else None
        return (value, ends.low, ends.high) if ends else (value, None, None)

    def _of(self, index: int) -> tuple[tuple[str, ...], Draws]:
        if index not in self._draws:
            file, record = self._scored[index]
            table = read_image_counts(record, file)
            (draws,) = resampled([table], class_mean=record.class_mean, resamples=record.resamples)
            self._draws[index] = tuple(table.ids), draws
        return self._draws[index]


def _compare(record: Record, other: Record) -> bool:
    """Whether two numbers stand for the same pixels and labels."""

    def basis(one: Record) -> tuple[object, ...]:
        truth = one.provenance.inputs.get("truth")
        return one.images, one.truth_rule, one.class_mean, list(one.iou), truth

    return basis(record) == basis(other)


def _block(record: Record) -> str:
    if record.at_best_threshold:
        return CHOSEN
    if record.product in ("refiner_prediction", "segmenter") or _has_clip_tags(record):
        return WITHOUT_CRF if record.crf else WITHOUT
    return WITH_TAGS


def _has_clip_tags(record: Record) -> bool:
    """Whether the tags of its images are those that CLIP itself predicts."""
    noise: Mapping[str, object] = record.tag_quality.noise if record.tag_quality else {}
    splits = noise.get("splits")
    return noise.get("source") == "clip" and record.split in (
        splits if isinstance(splits, list | tuple) else ()
    )


def _label(record: Record, records: Sequence[Record]) -> str:
    parts = [product_name(record)]
    if _has_clip_tags(record):
        parts.append(_OF_CLIP)
    elif record.product == "masks" and record.crf:
        parts = [f"{parts[0]} (CRF)"]
    if record.protocol.startswith("multi"):
        parts.append("multi")
    if len({other.run for other in records}) > 1:
        parts.append(record.run)
    if len({other.truth_rule for other in records}) > 1:
        parts.append(f"truth {record.truth_rule}")
    return ", ".join(parts)


def _explained(kind: Kind) -> Iterator[str]:
    name = kind.label.split(",")[0].removesuffix(" (CRF)")
    yield _WORDS[kind.product].format(label=name)
    if _OF_CLIP in kind.label:
        yield _CLIP_TAGS
    if kind.has_crf:
        yield _CRF
    if kind.protocol.startswith("multi"):
        scales = f", at scales {kind.scales}" if "," in kind.scales else ""
        yield _MULTI.format(scales=scales)
    if kind.is_chosen:
        yield _CHOSEN
        if kind.product == "refiner_scores":
            yield _REPLACES
