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
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from wsss.artifacts.atomic import write_text
from wsss.data.datasets.candidates import Candidate
from wsss.data.datasets.classes import has_control
from wsss.data.images.decode import Decoded
from wsss.data.manifest import Sample

Used = Literal["yes", "no", "skipped"]
COLUMNS = ("file", "id", "split", "used", "reason")
_LONGEST, _LONGEST_PART = 1000, 200  # bytes; of a whole id, and of a file's or folder's name
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


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
    spelt: dict[tuple[str, str], str] = {}
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
        other = spelt.setdefault((one.split, one.id.casefold()), one.id)
        notes = [*facts.notes, *_worth_a_look(sample, twin, other)]
        if notes:
            rows.append(Row(one.path, one.id, one.split, "yes", "; ".join(notes)))
    return Decisions(tuple(samples), tuple(rows))


def write_quarantine(path: Path, rows: Iterable[Row]) -> None:
    """Atomically write the table."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        cells = (str(row.file), row.id, row.split, row.used, row.reason)
        writer.writerow([_CONTROL.sub(_escaped, cell) for cell in cells])
    write_text(path, buffer.getvalue())


def _why_not(one: Candidate, facts: Decoded, taken: Mapping[tuple[str, str], Path]) -> str | None:
    if unwritable := _unwritable(one.id):
        return f"id {one.id[:_LONGEST_PART]!r} {unwritable}; rename it"
    if one.problem:
        return one.problem
    if unsafe := _unsafe(one.id):
        return f"id {one.id[:_LONGEST_PART]!r} {unsafe}; rename it"
    if facts.error:
        return facts.error
    if (one.split, one.id) in taken:
        return f"duplicate id: {taken[one.split, one.id]} has it already; rename one of them"
    if one.split == "train" and not one.tags:
        return "no tag"
    return None


def _worth_a_look(sample: Sample, twin: Sample, other: str) -> list[str]:
    notes = []
    if other != sample.id:
        notes.append(f"differs from id {other!r} in case only: disks that ignore case keep one")
    if not sample.tags:
        notes.append("no tag: predicted only")
    if twin.split != sample.split:
        notes.append(f"same content as {twin.id!r} in {twin.split}: its score is not held out")
    elif twin is not sample:
        notes.append(f"same content as {twin.id!r}")
    return notes


def _unsafe(image: str) -> str:
    """Why an id names no file below any folder that results are written to."""
    path = PurePosixPath(image)
    outside = not path.parts or path.is_absolute() or ".." in path.parts
    return "leads out of the results' folder" if outside else ""


def _unwritable(image: str) -> str:
    """Why an id can be no file's name on some disk, or breaks the tables that list it."""
    if "\\" in image or has_control(image):
        return "holds a backslash, a control character or bytes that are no UTF-8"
    longest = max(len(part.encode()) for part in image.split("/"))
    if len(image.encode()) > _LONGEST or longest > _LONGEST_PART:
        return f"is longer than {_LONGEST_PART} bytes, which names of results cannot be"
    return ""


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
