"""Decide which images a run uses, and list the others with the reason.

Used, with a note: converted or turned images; images with equal content, within a split or across
both (a leak); held-out images without tags, for which predictions can be made.
Unusable: images that cannot be decoded in full; unknown tags, as an image whose tags are incomplete
would teach that the object is background; training images of a list without tag; files with the
same id as another. Skipped: a user's photos without tag, the second entry of a list for the same
file, rows of other splits than the run's, and a good image whose mask would have to be a file where
that of another needs a folder.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal, cast

from wsss.artifacts.errors import ArtifactError
from wsss.data.datasets.candidates import Candidate
from wsss.data.datasets.classes import has_control, unicode_form
from wsss.data.images.read import ImageFacts
from wsss.data.manifest import Sample

Used = Literal["yes", "no", "skipped"]
COLUMNS = ("file", "id", "split", "used", "reason")
_MAX_ID, _MAX_PART = 1000, 200  # bytes of an id, and of each part between its slashes
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class QuarantineRow:
    """A row of the quarantine table."""

    file: Path
    id: str
    split: str
    used: Used
    """yes: used, with a note; no: unusable; skipped: left out on purpose."""
    reason: str


@dataclass(frozen=True)
class Triage:
    """The usable images, and the rows of the quarantine table."""

    samples: tuple[Sample, ...]
    rows: tuple[QuarantineRow, ...]

    @property
    def unusable(self) -> tuple[QuarantineRow, ...]:
        """The rows of unusable images; skipped ones are not among them."""
        return tuple(row for row in self.rows if row.used == "no")

    def as_split(self, name: str) -> Triage:
        """The same under the name of another split."""
        samples = (replace(sample, split=name) for sample in self.samples)
        return Triage(tuple(samples), tuple(replace(row, split=name) for row in self.rows))


def triage(candidates: Iterable[Candidate], decoded: Mapping[Path, ImageFacts]) -> Triage:
    """Decide on the candidates in their order.

    Args:
        candidates: the images of a data set.
        decoded: the result of each file that was opened.
    """
    samples: list[Sample] = []
    rows: list[QuarantineRow] = []
    path_of_id: dict[tuple[str, str], Path] = {}
    by_content: dict[str, Sample] = {}
    by_folded_id: dict[tuple[str, str], str] = {}
    results = _ResultNames()
    for image in candidates:
        used: Used
        facts = decoded.get(image.path, ImageFacts(error="was not opened"))
        twice = not image.problem and path_of_id.get((image.split, image.id)) == image.path
        if image.skipped or twice:
            used = "skipped"
            faults = (image.skipped or "listed twice; used once", name_fault(image.id))
            reason = "; ".join(filter(None, faults))
        elif reason := _unusable(image, facts, path_of_id):
            used = "no"
        elif reason := results.clash(image):
            used = "skipped"
        else:
            used = "yes"
            path_of_id[image.split, image.id] = image.path
            results.add(image)
            size = facts.width, facts.height
            sample = Sample(image.id, image.split, image.path, *size, facts.digest, image.tags)
            samples.append(sample)
            twin = by_content.setdefault(facts.digest, sample)
            folded = unicode_form(image.id).casefold()
            other_id = by_folded_id.setdefault((image.split, folded), image.id)
            reason = "; ".join((*facts.notes, *_notes(sample, twin, other_id)))
        if reason:
            rows.append(QuarantineRow(image.path, image.id, image.split, used, reason))
    return Triage(tuple(samples), tuple(rows))


class _ResultNames:
    """Files and folders that the results of the used images take, of each split."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, str], str] = {}
        self._folders: dict[tuple[str, str], str] = {}

    def add(self, image: Candidate) -> None:
        """Take the names of an image."""
        self._files[image.split, f"{image.id}.png"] = image.id
        for folder in PurePosixPath(image.id).parents:
            self._folders[image.split, str(folder)] = image.id

    def clash(self, image: Candidate) -> str:
        """Why the results of an image cannot lie beside those of the others; empty if they can."""
        if other := self._folders.get((image.split, f"{image.id}.png")):
            return (
                f"its mask {image.id}.png would be the folder of id {other!r}; rename one of them"
            )
        for folder in PurePosixPath(image.id).parents:
            if other := self._files.get((image.split, str(folder))):
                return f"its folder {folder} would be the mask of id {other!r}; rename one of them"
        return ""


def quarantine_text(rows: Iterable[QuarantineRow]) -> str:
    """The table as CSV."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        cells = (str(row.file), row.id, row.split, row.used, row.reason)
        writer.writerow([_CONTROL.sub(_escaped, cell) for cell in cells])
    return buffer.getvalue()


def read_quarantine(path: Path) -> tuple[QuarantineRow, ...]:
    """The rows of a table that `quarantine_text` wrote; none where there is no table.

    Raises:
        ArtifactError: it has other columns.
    """
    if not path.is_file():
        return ()
    with path.open(encoding="utf-8", newline="") as stream:
        rows = csv.reader(stream)
        if (header := tuple(next(rows, ()))) != COLUMNS:
            raise ArtifactError(
                f"{path}: the first line is {','.join(header)!r}, expected {','.join(COLUMNS)}; "
                "rerun ingest"
            )
        return tuple(
            QuarantineRow(Path(file), image, split, cast("Used", used), reason)
            for file, image, split, used, reason in rows
        )


def same_id(path: Path, other: Path) -> str:
    """Why an image cannot be used beside another one of the same id."""
    if path.with_suffix("") == other.with_suffix(""):
        return f"same name but for the ending: its mask would be that of {other}; rename one"
    return f"duplicate id: {other} has it already; rename one of them"


def _unusable(
    image: Candidate, facts: ImageFacts, path_of_id: Mapping[tuple[str, str], Path]
) -> str:
    """Why an image cannot be used; empty if it can."""
    if fault := name_fault(image.id) or image.problem:
        return fault
    if leads_out(image.id):
        return f"id {image.id[:_MAX_PART]!r} leads out of the results' folder; rename it"
    if (plain := str(PurePosixPath(image.id))) != image.id:
        return f"id {image.id[:_MAX_PART]!r} is another way to write {plain[:_MAX_PART]!r}"
    if facts.error:
        return facts.error
    if other := path_of_id.get((image.split, image.id)):
        return same_id(image.path, other)
    return "no tag" if image.split == "train" and not image.tags else ""


def _notes(sample: Sample, twin: Sample, other_id: str) -> list[str]:
    notes = []
    if other_id != sample.id:
        notes.append(
            f"differs from id {other_id!r} in case or Unicode form only: disks that ignore these "
            "keep one"
        )
    if not sample.tags:
        notes.append("no tag: predicted only")
    if twin.split != sample.split:
        notes.append(f"same content as {twin.id!r} in {twin.split}: its score is not held out")
    elif twin is not sample:
        notes.append(f"same content as {twin.id!r}")
    return notes


def leads_out(image: str) -> bool:
    """Whether an id names no file below the folder that results are written to."""
    path = PurePosixPath(image)
    return not path.parts or path.is_absolute() or ".." in path.parts


def name_fault(image: str) -> str:
    """Why an id cannot be the name of a file on every disk, or breaks the tables that list it."""
    if "\\" in image or has_control(image):
        fault = "holds a backslash, a control character or bytes that are no UTF-8"
    elif len(image.encode()) > _MAX_ID or any(
        len(part.encode()) > _MAX_PART for part in image.split("/")
    ):
        fault = f"is longer than {_MAX_PART} bytes, which names of results cannot be"
    else:
        return ""
    return f"id {image[:_MAX_PART]!r} {fault}; rename it"


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
