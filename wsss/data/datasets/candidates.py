"""What the readers of data sets hand to ingest: every image that the data set names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wsss.config.cams import Split
from wsss.data.datasets.classes import ClassList


@dataclass(frozen=True, slots=True)
class Candidate:
    """One image of a list or a table, not opened yet."""

    id: str
    split: Split
    path: Path
    tags: tuple[int, ...] = ()
    """0-based class indices, in the order of the annotation."""
    problem: str | None = None
    """Why it cannot be used, as far as lists and tags tell."""
    skipped: str | None = None
    """Why it is left out on purpose; does not count as unusable."""


@dataclass(frozen=True)
class Dataset:
    """A data set as its lists and tags describe it."""

    classes: ClassList
    candidates: tuple[Candidate, ...]
    sources: tuple[Path, ...] = ()
    """The files (lists, tables, JSON) that say all this."""
