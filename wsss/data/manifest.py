"""The manifest: which images a run uses, with size, digest, tags and split."""

from __future__ import annotations

import csv
import functools
import io
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsss.artifacts.checksum import read_checked_text, write_checked_text
from wsss.artifacts.errors import ArtifactError

_COLUMNS = ("id", "split", "path", "width", "height", "digest", "tags")
TAG_SEPARATOR = ";"


@dataclass(frozen=True, slots=True)
class Sample:
    """One usable image."""

    id: str
    split: str
    path: Path
    width: int
    """Pixels, after the EXIF orientation was applied."""
    height: int
    digest: str
    """sha256 of the file's bytes."""
    tags: tuple[int, ...]
    """0-based indices into the class list, in the order of the annotation."""


@dataclass(frozen=True)
class Manifest:
    """The images of a run, in the order of the data set's lists; ids are unique within a split."""

    samples: tuple[Sample, ...]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def __len__(self) -> int:
        return len(self.samples)

    def split(self, name: str) -> Manifest:
        """The images of one split."""
        return Manifest(tuple(sample for sample in self.samples if sample.split == name))

    def shard(self, number: int, count: int) -> Manifest:
        """Part ``number`` of ``count`` (1-based).

        An image's part depends on its id alone, so that adding images changes only the parts that
        they fall into.
        """
        if not 1 <= number <= count:
            raise ValueError(f"shard {number} of {count}: expected 1 … {count}")
        return Manifest(
            tuple(s for s in self.samples if zlib.crc32(s.id.encode()) % count == number - 1)
        )


def write_manifest(path: Path, samples: Iterable[Sample], class_names: Sequence[str]) -> None:
    """Atomically write the manifest as CSV, and its digest beside it; tags by name, with ``;``."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for s in samples:
        tags = TAG_SEPARATOR.join(class_names[index] for index in s.tags)
        writer.writerow([s.id, s.split, s.path, s.width, s.height, s.digest, tags])
    write_checked_text(path, buffer.getvalue())


def read_manifest(path: Path, class_names: Sequence[str]) -> Manifest:
    """Read a manifest that `write_manifest` wrote for the same class list.

    Raises:
        ArtifactError: the file is missing or damaged, does not match the digest beside it, has
            other columns, or names an unknown class.
    """
    index = {name: number for number, name in enumerate(class_names)}

    @functools.cache
    def numbers(tags: str) -> tuple[int, ...]:
        return tuple(index[tag] for tag in tags.split(TAG_SEPARATOR) if tag)

    try:
        text = read_checked_text(path, "rerun ingest").encode()
        # Not StringIO, which takes four bytes a character; equal tags are one tuple.
        with io.TextIOWrapper(io.BytesIO(text), encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            if tuple(reader.fieldnames or ()) != _COLUMNS:
                raise ArtifactError(
                    f"{path}: columns are {reader.fieldnames}, expected {list(_COLUMNS)}; "
                    "rerun ingest"
                )
            return Manifest(
                tuple(
                    Sample(
                        id=row["id"],
                        split=sys.intern(row["split"]),
                        path=Path(row["path"]),
                        width=int(row["width"]),
                        height=int(row["height"]),
                        digest=row["digest"],
                        tags=numbers(row["tags"]),
                    )
                    for row in reader
                )
            )
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no manifest; run ingest first") from None
    except KeyError as error:
        raise ArtifactError(
            f"{path}: class {error} is not in the class list; rerun ingest"
        ) from None
    except (OSError, ValueError, TypeError, AttributeError, csv.Error) as error:
        raise ArtifactError(f"{path}: is damaged or no manifest ({error}); rerun ingest") from None
