"""Tables of single classes, apart from the main table: errors and contours, and co-occurrence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from wsss.score.image_counts_file import Scored, read_image_counts, read_image_tags
from wsss.score.metrics.cooccurrence import (
    FEWEST_IMAGES,
    PARTNERS,
    Cooccurrence,
    Subset,
    cooccurrences,
)
from wsss.score.record import Record, defined
from wsss.score.tables.rows import (
    Grid,
    Table,
    class_mean_notes,
    percent,
    row_name,
    title,
    warnings,
)
from wsss.score.tables.write import Texts, csv_text, table_texts, write_table

MEASURES = {
    "iou": "IoU",
    "boundary_iou": "boundary IoU",
    "false_positive_by_class": "false positives",
    "false_negative_by_class": "false negatives",
}
"""Fields of a record by class, and what people call them."""
NOTES = (
    "Percent. False positives and false negatives: pixels that are wrongly predicted as a class, "
    "and missed ones, as shares of its union of truth and prediction. IoU + false positives + "
    "false negatives = 100.",
    "Boundary IoU: the IoU of the pixels near the contours of a class, at most the named share of "
    "the image's diagonal inside them (Cheng et al., arXiv:2103.16562). Pixels without a truth are "
    "taken out of truth and prediction first. Not at the best threshold.",
)
PAIR_NOTES = (
    "Percent. IoU of a class over the images that are tagged with it alone, with others as well, "
    "and with each of its partners; in brackets their number. Wrong pixels in other images do not "
    "count, so only the numbers of one class compare.",
    f"Partners: up to {PARTNERS} of each class, the most frequent, with {FEWEST_IMAGES} common "
    "images or more. After →: share of the true pixels of the class that are predicted as the "
    "partner there.",
    "Not at the best threshold, which has no counts per image.",
)


def make_class_tables(scored: Sequence[Scored], out_dir: Path) -> list[Path]:
    """Write ``classes`` and ``pairs`` as ``.md``, ``.csv`` (full precision) and ``.html``.

    Args:
        scored: records with their files, in the order of the rows.

    Returns:
        The files written.

    Raises:
        ArtifactError: the counts per image of a record are missing or damaged.
    """
    classes = write_table(out_dir, "classes", class_table(scored))
    return classes + write_table(out_dir, "pairs", pair_table(scored))


def class_table(scored: Sequence[Scored]) -> Texts:
    """IoU, boundary IoU and shares of wrong pixels of each class."""
    records = [record for _, record in scored]
    names = list(dict.fromkeys(name for record in records for name in record.iou))
    ratios = dict.fromkeys(r.boundary_ratio for r in records if r.boundary_ratio)
    grids = tuple(
        Grid(
            f"{what[0].upper()}{what[1:]} of each class",
            ("row", "split", *names),
            tuple(
                (row_name(r), r.split, *(percent(getattr(r, field).get(name)) for name in names))
                for r in records
                if getattr(r, field)
            ),
        )
        for field, what in MEASURES.items()
    )
    table = Table(
        title=f"{title(records)}: classes",
        notes=(
            *warnings(records),
            *class_mean_notes(records),
            *NOTES,
            *(f"Boundary regions: {ratio:g} of the diagonal." for ratio in ratios),
        ),
        columns=("mean over the labels", "split", "mIoU", *list(MEASURES.values())[1:]),
        rows=tuple(
            (
                row_name(r),
                r.split,
                *map(percent, (r.miou, r.boundary_miou, r.false_positive, r.false_negative)),
            )
            for r in records
        ),
        class_columns=(),
        class_rows=(),
        more=tuple(grid for grid in grids if grid.rows),
    )
    return table_texts(table, csv_text([line for r in records for line in _class_lines(r)]))


def pair_table(scored: Sequence[Scored]) -> Texts:
    """Classes alone, and together with others."""
    lines: list[tuple[str, ...]] = []
    numbers: list[dict[str, object]] = []
    for file, record in scored:
        if record.image_counts is None or not (tags := read_image_tags(record, file)):
            continue
        names = list(record.iou)
        for entry in cooccurrences(read_image_counts(record, file), tags):
            lines.append((row_name(record), record.split, *_pair_cells(entry, names)))
            numbers += _pair_lines(entry, names, record)
    records = [record for _, record in scored]
    table = Table(
        title=f"{title(records)}: classes that occur together",
        notes=(*warnings(records), *PAIR_NOTES),
        columns=(
            "row",
            "split",
            "class",
            "alone",
            "with others",
            "with each partner → predicted as it",
        ),
        rows=tuple(lines),
        class_columns=(),
        class_rows=(),
    )
    return table_texts(table, csv_text(numbers))


def _class_lines(record: Record) -> Iterator[dict[str, object]]:
    """A line per label, in full precision."""
    for name in record.iou:
        yield _about(record) | {
            "class": name,
            **{field.removesuffix("_by_class"): getattr(record, field).get(name)
               for field in (*MEASURES, "precision_by_class", "recall_by_class")},
        }  # fmt: skip


def _pair_lines(
    entry: Cooccurrence, names: Sequence[str], record: Record
) -> Iterator[dict[str, object]]:
    """A line per set of images of a class, in full precision; shares are empty where undefined."""
    about = _about(record) | {"class": names[entry.label]}
    subsets = {"alone": entry.alone, "with others": entry.together}
    for what, subset in subsets.items():
        yield about | {"images_tagged": what, "images": subset.images, "iou": defined(subset.iou)}
    for partner in entry.partners:
        yield about | {
            "images_tagged": "with partner",
            "images": partner.subset.images,
            "iou": defined(partner.subset.iou),
            "partner": names[partner.label],
            "predicted_as_partner": defined(partner.confused),
        }


def _about(record: Record) -> dict[str, object]:
    return {"row": row_name(record), "run": record.run, "split": record.split}


def _pair_cells(entry: Cooccurrence, names: Sequence[str]) -> tuple[str, ...]:
    partners = (
        f"{names[p.label]} {_subset_text(p.subset)} → {percent(defined(p.confused))}"
        for p in entry.partners
    )
    sets = map(_subset_text, (entry.alone, entry.together))
    return (names[entry.label], *sets, ", ".join(partners))


def _subset_text(subset: Subset) -> str:
    """``44.1 (12)``; empty without images."""
    return f"{percent(defined(subset.iou))} ({subset.images})" if subset.images else ""
