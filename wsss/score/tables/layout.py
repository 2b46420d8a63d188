"""The table of a run: blocks of rows that compare, a column per split, and all numbers below."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from wsss.score.metrics.bootstrap import IMAGES
from wsss.score.record import Record
from wsss.score.tables.rows import (
    Grid,
    Table,
    background_text,
    class_mean_notes,
    interval_text,
    percent,
    product_title,
    row_name,
    sam_notes,
    scales_text,
    supervision_notes,
    tag_notes,
    title,
    warnings,
    weights_note,
)
from wsss.score.tables.steps import Step, kind_of, words

CHANGE = "change"
"""Head of the column with the difference to the row before."""
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


@dataclass(frozen=True)
class Score:
    """A number of the table, and where it stands."""

    split: str
    step: Step
    miou: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Line:
    """A row of the table: the numbers of one product by split."""

    block: str
    label: str
    scores: Mapping[str, Score]


def lines_of(scores: Iterable[Score]) -> list[Line]:
    """Rows in the order of their first numbers, block by block; empty ones are left out."""
    rows: dict[tuple[str, str, int], dict[str, Score]] = {}
    for score in scores:
        if score.miou is not None:
            block, label, copy = score.step.block, score.step.label, 0
            while score.split in rows.setdefault((block, label, copy), {}):
                copy += 1  # two numbers of the same name: two rows
            rows[block, label, copy][score.split] = score
    blocks = list(dict.fromkeys(block for block, _, _ in rows))
    lines = [Line(block, label, by_split) for (block, label, _), by_split in rows.items()]
    return sorted(lines, key=lambda line: blocks.index(line.block))


def splits_of(lines: Sequence[Line]) -> list[str]:
    """The splits that any row has, train first."""
    names = dict.fromkeys(split for line in lines for split in line.scores)
    return sorted(names, key=lambda name: ("train", "val", name).index(name))


def has_changes(lines: Sequence[Line], split: str) -> bool:
    """Whether any row has a difference to the row before."""
    return any(
        score.step.change is not None
        for line in lines
        if (score := line.scores.get(split)) is not None
    )


def is_best(line: Line, split: str, lines: Sequence[Line]) -> bool:
    """Whether a number is the highest of several in its block, as it is printed."""
    numbers = [
        percent(other.scores[split].miou)
        for other in lines
        if other.block == line.block and split in other.scores
    ]
    return (
        len(numbers) > 1
        and split in line.scores
        and percent(line.scores[split].miou) == max(numbers, key=float)
    )


def change_text(step: Step) -> str:
    """``+3.1 (1.2…5.0)``, in points; empty where there is no row before."""
    if step.change is None:
        return ""
    text = f"{_points(step.change):+.1f}"
    if step.change_low is None or step.change_high is None:
        return text
    return f"{text} ({_points(step.change_low):.1f}…{_points(step.change_high):.1f})"


def _points(share: float) -> float:
    """Percent with one decimal, without a negative zero."""
    return round(100 * share, 1) + 0.0


def lay_out(records: Sequence[Record], steps: Sequence[Step]) -> Table:
    """Bring records and their steps into rows of text, percent with one decimal."""
    lines = lines_of(
        Score(record.split, step, record.miou, record.miou_low, record.miou_high)
        for record, step in zip(records, steps, strict=True)
    )
    columns, rows = ["row"], [[line.label] for line in lines]
    best = set()
    for split in splits_of(lines):
        best |= {
            (index, len(columns)) for index, line in enumerate(lines) if is_best(line, split, lines)
        }
        columns.append(split)
        scores = [line.scores.get(split) for line in lines]
        for row, score in zip(rows, scores, strict=True):
            row.append(_miou_text(score) if score else "")
        if has_changes(lines, split):
            columns.append(CHANGE)
            for row, score in zip(rows, scores, strict=True):
                row.append(change_text(score.step) if score else "")
    blocks = [line.block for line in lines]
    headings = {blocks.index(block): block for block in blocks}
    supervisions = {record.supervision for record in records}
    signs = {record.supervision_sign for record in records}
    names = list(dict.fromkeys(name for record in records for name in record.iou))
    truths = dict.fromkeys(f"Truth of {r.split}: {r.truth}." for r in records)
    chains = dict.fromkeys(
        f"{product_title(r)}: {r.chain}." for r in records if r.product != "blob"
    )
    return Table(
        title=title(records),
        headings=headings,
        best=frozenset(best),
        words=(
            *warnings(records),
            *tag_notes(records),
            *class_mean_notes(records),
            f"In brackets: 95 % ({IMAGES}).",
            *words(map(kind_of, records, steps), has_changes=CHANGE in columns),
        ),
        notes=(
            *supervision_notes(supervisions, (record.mixture for record in records)),
            *sam_notes(records),
            *NOTES,
            *truths,
            *filter(None, [weights_note(records)]),
            "Chains. " + " ".join(chains),
        ),
        columns=tuple(columns),
        rows=tuple(map(tuple, rows)),
        class_columns=("IoU of", "split", *names),
        class_rows=tuple(
            (row_name(r), r.split, *(percent(r.iou.get(name)) for name in names)) for r in records
        ),
        more=(_all_numbers(records, signs != {"I"}),),
    )


def _all_numbers(records: Sequence[Record], names_supervision: bool) -> Grid:
    """A row per record."""
    several_truths = len({record.truth_rule for record in records}) > 1
    rows = [
        {
            "row": row_name(record),
            "supervision": record.supervision_sign if names_supervision else "",
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
    cells = tuple(tuple(row[name] for name in columns) for row in rows)
    return Grid("All numbers of each row", tuple(columns), cells, is_shaded=False)


def _miou_text(score: Score) -> str:
    ends = interval_text(score.low, score.high)
    return f"{percent(score.miou)} ({ends})" if ends else percent(score.miou)
