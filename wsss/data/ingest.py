"""Decide which images a run uses: what can be used is used, the rest is listed with its reason.

Used, with a note: whatever had to be converted or turned; images with equal content, within a split
or across both (a leak); held-out images without tags, for which predictions can be made.
Not used: what cannot be decoded in full; unknown tags, as a picture whose tags are incomplete would
teach that the object is background; training images without tag; of two files with one id, the
second. Left out without counting as a loss: a list's second entry for the same file, and rows of
splits that the run does not ask for.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from wsss.artifacts.atomic import write_text
from wsss.data.candidates import Candidate
from wsss.data.decode import Decoded
from wsss.data.manifest import Sample

Used = Literal["yes", "no", "skipped"]
COLUMNS = ("file", "id", "split", "used", "reason")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the quarantine table."""

    file: Path
    id: str
    split: str
    used: Used
    """yes: used, but worth a look; no: unusable; skipped: left out on purpose."""
    reason: str


@dataclass(frozen=True)
class Decisions:
    """What became of the candidates."""

    samples: tuple[Sample, ...]
    rows: tuple[Row, ...]

    @property
    def unusable(self) -> tuple[Row, ...]:
        """The rows that count as a loss."""
        return tuple(row for row in self.rows if row.used == "no")

    @property
    def share(self) -> float:
        """Unusable images as a share of those that the run asks for."""
        asked = len(self.samples) + len(self.unusable)
        return len(self.unusable) / asked if asked else 0.0

    def as_split(self, name: str) -> Decisions:
        """The same under the name of another split."""
        samples = (replace(sample, split=name) for sample in self.samples)
        return Decisions(tuple(samples), tuple(replace(row, split=name) for row in self.rows))


def decide(candidates: Iterable[Candidate], decoded: Mapping[Path, Decoded]) -> Decisions:
    """Go through the candidates in order.

    Args:
        candidates: as the data set's reader gave them.
        decoded: of each file that was opened.
    """
    samples: list[Sample] = []
    rows: list[Row] = []
    taken: dict[tuple[str, str], Path] = {}
    content: dict[str, Sample] = {}
    for one in candidates:
        again = not one.problem and taken.get((one.split, one.id)) == one.path
        if one.skipped or again:
            why = one.skipped or "listed twice; used once"
            rows.append(Row(one.path, one.id, one.split, "skipped", why))
            continue
        facts = decoded.get(one.path, Decoded("was not opened"))
        reason = _why_not(one, facts, taken)
        if reason:
            rows.append(Row(one.path, one.id, one.split, "no", reason))
            continue
        taken[one.split, one.id] = one.path
        sample = Sample(
            one.id, one.split, one.path, facts.width, facts.height, facts.digest, one.tags
        )
        samples.append(sample)
        twin = content.setdefault(facts.digest, sample)
        notes = [*facts.notes, *_worth_a_look(sample, twin)]
        if notes:
            rows.append(Row(one.path, one.id, one.split, "yes", "; ".join(notes)))
    return Decisions(tuple(samples), tuple(rows))


def write_quarantine(path: Path, rows: Iterable[Row]) -> None:
    """Atomically write the table."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([row.file, row.id, row.split, row.used, row.reason] for row in rows)
    write_text(path, buffer.getvalue())


def _why_not(one: Candidate, facts: Decoded, taken: Mapping[tuple[str, str], Path]) -> str | None:
    if one.problem:
        return one.problem
    if not _is_safe(one.id):
        return f"id {one.id!r} leads out of the results' folder; rename it"
    if facts.error:
        return facts.error
    if (one.split, one.id) in taken:
        return f"duplicate id: {taken[one.split, one.id]} has it already; rename one of them"
    if one.split == "train" and not one.tags:
        return "no tag"
    return None


def _worth_a_look(sample: Sample, twin: Sample) -> list[str]:
    notes = []
    if not sample.tags:
        notes.append("no tag: predicted only")
    if twin.split != sample.split:
        notes.append(f"same content as {twin.id!r} in {twin.split}: its score is not held out")
    elif twin is not sample:
        notes.append(f"same content as {twin.id!r}")
    return notes


def _is_safe(image: str) -> bool:
    """Whether an id names a file below any folder that results are written to."""
    path = PurePosixPath(image)
    return (
        bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in image
    )
