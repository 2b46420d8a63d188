"""The manifest: which images a run uses, with size, digest, tags and split."""

from __future__ import annotations

import csv
import functools
import io
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

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
    """Pixels, upright (after the EXIF orientation)."""
    height: int
    digest: str
    """sha256 of the file's bytes."""
    tags: tuple[int, ...]
    """0-based class indices, in the order of the annotation."""


@dataclass(frozen=True)
class Manifest:
    """The images of a run, in the order of the data set's lists; ids are unique within a split."""

    samples: tuple[Sample, ...]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def __len__(self) -> int:
        return len(self.samples)

    def split(self, name: str) -> Manifest:
        """The images of one split.

        Raises:
            ArtifactError: there are none, as with a misspelt name.
        """
        samples = tuple(sample for sample in self.samples if sample.split == name)
        if not samples:
            counts = Counter(sample.split for sample in self.samples)
            listed = ", ".join(f"{split} ({count} images)" for split, count in counts.items())
            raise ArtifactError(
                f"the manifest has no image of split {name!r}, only {listed or 'none at all'}; "
                "check the name of the split, and data.train_list and data.val_list. Without "
                "held-out images set data.val_list to '' and cams.splits to [train]"
            )
        return Manifest(samples)

    def shard(self, index: int, count: int) -> Manifest:
        """Part ``index`` of ``count`` (1-based).

        The part of an image depends on its id only, so adding images changes only their parts.

        Raises:
            ValueError: there is no such part.
        """
        if not 1 <= index <= count:
            raise ValueError(f"shard {index} of {count}: expected 1 … {count}")
        return Manifest(
            tuple(s for s in self.samples if zlib.crc32(s.id.encode()) % count == index - 1)
        )


def item_path(folder: Path, image: str, suffix: str) -> Path:
    """The file of an id, which may name sub folders but must stay inside ``folder``.

    Raises:
        ArtifactError: the id is no file name.
    """
    parts = PurePosixPath(image).parts
    if not parts or image.startswith("/") or ".." in parts or "\0" in image:
        raise ArtifactError(f"the image id {image!r} is no file name; rename the image")
    return folder.joinpath(f"{image}{suffix}")


def write_manifest(path: Path, samples: Iterable[Sample], class_names: Sequence[str]) -> None:
    """Atomically write the manifest as CSV, and its checksum."""
    write_checked_text(path, manifest_text(samples, class_names))


def manifest_text(samples: Iterable[Sample], class_names: Sequence[str]) -> str:
    """The manifest as CSV; tags are names with ``;`` between."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for s in samples:
        tags = TAG_SEPARATOR.join(class_names[index] for index in s.tags)
        writer.writerow([s.id, s.split, s.path, s.width, s.height, s.digest, tags])
    return buffer.getvalue()


def read_manifest(path: Path, class_names: Sequence[str]) -> Manifest:
    """Read a manifest that `write_manifest` wrote for the same class list.

    Raises:
        ArtifactError: the file is missing or damaged, does not match its checksum, has other
            columns, or names an unknown class.
    """
    class_indices = {name: index for index, name in enumerate(class_names)}

    @functools.cache
    def indices(tags: str) -> tuple[int, ...]:
        return tuple(class_indices[tag] for tag in tags.split(TAG_SEPARATOR) if tag)

    try:
        text = read_checked_text(path, "rerun ingest").encode()
        # Not StringIO, which takes four bytes per character; equal tags share one tuple.
        with io.TextIOWrapper(io.BytesIO(text), encoding="utf-8", newline="") as stream:
            reader = csv.reader(stream)
            columns = tuple(next(reader, ()))
            if columns != _COLUMNS:
                raise ArtifactError(
                    f"{path}: columns are {list(columns)}, expected {list(_COLUMNS)}; rerun ingest"
                )
            samples = (
                Sample(id, sys.intern(split), Path(file), int(w), int(h), digest, indices(tags))
                for id, split, file, w, h, digest, tags in reader
            )
            return Manifest(tuple(samples))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no manifest; run ingest first") from None
    except KeyError as error:
        raise ArtifactError(
            f"{path}: class {error} is not in the class list; rerun ingest"
        ) from None
    except (OSError, ValueError, TypeError, AttributeError, csv.Error) as error:
        raise ArtifactError(f"{path}: is damaged or no manifest ({error}); rerun ingest") from None
