"""What a folder of results shows: an entry per photo, in a file next to the run's other products.

By it a rerun draws only the photos that changed, and the workflow notices files that are missing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wsss.artifacts.atomic import write_text
from wsss.artifacts.checksum import json_with_checksum, verified_json
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.provenance import Provenance

_AGAIN = "run the same command again"


@dataclass(frozen=True)
class Tag:
    """A tag of a photo, or a class that was predicted on it."""

    label: int
    probability: float | None
    """CLIP's, among this tag, the photo's other tags and the backgrounds; None where unknown."""


@dataclass(frozen=True)
class Entry:
    """A photo with its mask."""

    id: str
    photo: str
    """Path of the file."""
    size: tuple[int, int]
    """Width and height, pixels."""
    key: str
    """Digest of all that its files are drawn from."""
    tags: tuple[Tag, ...]
    shares: dict[int, float]
    """Share of the pixels of each label that occurs."""
    unsure: float
    """Share of the pixels whose label is unsure."""
    grid: tuple[int, int]
    """Columns and rows of `runs`."""
    runs: list[int]
    """See `wsss.photos.drawing.Drawn`."""
    files: dict[str, int]
    """Bytes of each file, by its path below the folder of results."""
    narrow: bool = False
    """Whether it is so long that the network sees few patches across it."""

    def is_drawn(self, folder: Path) -> bool:
        """Whether its files are there, by their sizes."""
        try:
            return all(os.stat(folder / path).st_size == size for path, size in self.files.items())
        except OSError:
            return False


@dataclass(frozen=True)
class LeftOut:
    """A photo without a mask."""

    photo: str
    """Path of the file."""
    reason: str


@dataclass(frozen=True)
class Record:
    """The photos of a folder of results."""

    folder: Path
    provenance: Provenance
    entries: tuple[Entry, ...]
    left_out: tuple[LeftOut, ...]
    pages: dict[str, int]
    """Bytes of the files that list all photos, by name."""

    def is_complete(self) -> bool:
        """Whether all its files are there, by their sizes."""
        pages = all(
            path.is_file() and path.stat().st_size == size
            for path, size in ((self.folder / name, size) for name, size in self.pages.items())
        )
        return pages and all(entry.is_drawn(self.folder) for entry in self.entries)


def write_record(path: Path, record: Record) -> None:
    """Atomically write a record, with its checksum."""
    content = {
        "folder": str(record.folder),
        "provenance": record.provenance.model_dump(mode="json"),
        "entries": list(map(entry_json, record.entries)),
        "left_out": [asdict(photo) for photo in record.left_out],
        "pages": record.pages,
    }
    write_text(path, json.dumps(json_with_checksum(content), separators=(",", ":")) + "\n")


def read_record(path: Path) -> Record:
    """What `write_record` wrote.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    try:
        content = verified_json(json.loads(path.read_text("utf-8")), path, _AGAIN)
        return Record(
            Path(content["folder"]),
            Provenance.model_validate(content["provenance"]),
            tuple(map(entry_from_json, content["entries"])),
            tuple(LeftOut(**photo) for photo in content["left_out"]),
            content["pages"],
        )
    except FileNotFoundError:
        raise ArtifactError(f"{path}: is not there; {_AGAIN}") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{path}: is damaged ({error!r}); {_AGAIN}") from None


def is_complete(path: Path) -> bool:
    """Whether a record can be read and all its files are there."""
    try:
        return read_record(path).is_complete()
    except ArtifactError:
        return False


def entry_json(entry: Entry) -> dict[str, Any]:
    """An entry as JSON reads it again: the keys of mappings are texts, and tuples are lists."""
    content: dict[str, Any] = json.loads(json.dumps(asdict(entry)))
    return content


def entry_from_json(content: Mapping[str, Any]) -> Entry:
    """What `entry_json` was given.

    Raises:
        KeyError: a value is missing; so do ValueError and TypeError say that it is no entry.
    """
    values = dict(content)
    values["size"], values["grid"] = tuple(values["size"]), tuple(values["grid"])
    values["tags"] = tuple(Tag(**tag) for tag in values["tags"])
    values["shares"] = {int(label): share for label, share in values["shares"].items()}
    return Entry(**values)
