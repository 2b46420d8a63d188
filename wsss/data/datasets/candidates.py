"""What the readers of data sets return: every image that the data set names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wsss.config.base import Split
from wsss.data.datasets.classes import ClassList


@dataclass(frozen=True, slots=True)
class Candidate:
    """One image of a list or a table, not yet opened."""

    id: str
    split: Split
    path: Path
    tags: tuple[int, ...] = ()
    """0-based class indices, in the order of the annotation."""
    problem: str | None = None
    """Why it cannot be used, according to lists and tags."""
    skipped: str | None = None
    """Why it is left out on purpose; does not count as unusable."""


@dataclass(frozen=True)
class Dataset:
    """A data set as its lists and tags describe it."""

    classes: ClassList
    candidates: tuple[Candidate, ...]
    sources: tuple[Path, ...] = ()
    """The lists, tables and JSON files that were read."""
