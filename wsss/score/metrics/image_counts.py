"""Counts per image, for statistics over images that are computed later.

An image's confusion matrix is almost empty: some labels in the truth, some in the prediction. Only
the cells that are not 0 are stored, and all images of a row lie in three flat arrays. 40,000 images
with 20 cells each take 8 MB of memory. Counts of boundary regions are stored in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from jaxtyping import Int64, UInt16

from wsss.artifacts.digest import digest_file
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.provenance import Provenance
from wsss.artifacts.shard import Item, Shard, ShardWriter

if TYPE_CHECKING:
    import scipy.sparse  # a fifth of the time that the workflow takes to start

KIND = "image_counts"
_IDS = "images"
_BOUNDARY = " boundary"  # after the name of a row
_CELL = 2 + 8  # bytes


AnyTable = TypeVar("AnyTable", bound="SparseTable")


@dataclass(frozen=True)
class SparseTable:
    """Counts of images: those of image ``i`` lie between ``bounds[i]`` and the next."""

    labels: int
    ids: tuple[str, ...]
    """In rising order."""
    bounds: Int64[np.ndarray, " bounds"]
    cell: UInt16[np.ndarray, " cells"]
    """Which count of the image it is."""
    count: Int64[np.ndarray, " cells"]
    """Pixels."""

    def of(self: AnyTable, images: Iterable[str]) -> AnyTable:
        """The counts of some of the images.

        Raises:
            KeyError: an image was not counted.
        """
        index = {image: i for i, image in enumerate(self.ids)}
        ids = sorted(set(images))
        rows = [slice(*self.bounds[index[image] :][:2]) for image in ids]
        return replace(
            self,
            ids=tuple(ids),
            bounds=np.cumsum([0, *(row.stop - row.start for row in rows)], dtype=np.int64),
            cell=np.concatenate([np.zeros(0, np.uint16), *(self.cell[row] for row in rows)]),
            count=np.concatenate([np.zeros(0, np.int64), *(self.count[row] for row in rows)]),
        )

    @property
    def image_index(self) -> Int64[np.ndarray, " cells"]:
        """Of each cell the position of its image in ``ids``."""
        return np.repeat(np.arange(len(self.ids)), np.diff(self.bounds))

    def _total(self, cells: int) -> Int64[np.ndarray, " cells"]:
        total = np.zeros(cells, np.int64)
        np.add.at(total, self.cell, self.count)
        return total


@dataclass(frozen=True)
class CountTable(SparseTable):
    """Confusion counts of images; a cell is ``true label * labels + predicted label``."""

    def total(self) -> Int64[np.ndarray, "truth prediction"]:
        """The confusion matrix over all images."""
        return self._total(self.labels**2).reshape(self.labels, self.labels)

    def sums(self) -> scipy.sparse.csr_array:
        """Per image the pixels hit, true and predicted of each label, one under the other.

        Returns:
            int64 of shape (3 * labels, images): what the IoU of any set of images follows from.
        """
        true, predicted = np.divmod(self.cell.astype(np.int32), self.labels)
        image = self.image_index.astype(np.int32)  # scipy's own type: it would convert a copy
        hit = true == predicted
        rows = np.concatenate([true[hit], self.labels + true, 2 * self.labels + predicted])
        columns = np.concatenate([image[hit], image, image])
        values = np.concatenate([self.count[hit], self.count, self.count])
        from scipy.sparse import csr_array

        return csr_array((values, (rows, columns)), shape=(3 * self.labels, len(self.ids)))


@dataclass(frozen=True)
class BoundaryTable(SparseTable):
    """Pixels of boundary regions of images; a cell is ``labels * (0 hit, 1 true, 2 predicted)``
    plus the label."""

    def total(self) -> Int64[np.ndarray, "3 labels"]:
        """The pixels hit, true and predicted of each label over all images."""
        return self._total(3 * self.labels).reshape(3, self.labels)


class ImageCounts(Generic[AnyTable]):
    """Collects counts per image; parts can be merged in any order.

    Args:
        labels: number of labels, background included.
    """

    def __init__(self, labels: int, table: type[AnyTable]) -> None:
        self.labels = labels
        self._table = table
        # The bytes of n uint16 cells and n int64 counts: arrays weigh more than what they hold.
        self._cells: dict[str, bytes] = {}

    def add(self, image: str, counts: Int64[np.ndarray, "rows columns"]) -> None:
        """Store the counts of one image.

        Raises:
            ValueError: the image was counted before.
        """
        if image in self._cells:
            raise ValueError(f"{image!r} was counted twice")
        flat = counts.ravel()
        cell = np.flatnonzero(flat)
        self._cells[image] = cell.astype(np.uint16).tobytes() + flat[cell].tobytes()

    def merge(self, other: ImageCounts[AnyTable]) -> None:
        """Add the images of another part.

        Raises:
            ValueError: both parts counted an image.
        """
        if twice := self._cells.keys() & other._cells.keys():
            raise ValueError(f"{min(twice)!r} was counted twice")
        self._cells |= other._cells

    def table(self) -> AnyTable:
        """All images, in the order of their ids."""
        ids = tuple(sorted(self._cells))
        lengths = [len(self._cells[image]) // _CELL for image in ids]
        pairs = list(zip((self._cells[image] for image in ids), lengths, strict=True))
        return self._table(
            labels=self.labels,
            ids=ids,
            bounds=np.cumsum([0, *lengths], dtype=np.int64),
            cell=np.frombuffer(b"".join(stored[: 2 * n] for stored, n in pairs), np.uint16),
            count=np.frombuffer(b"".join(stored[2 * n :] for stored, n in pairs), np.int64),
        )


@dataclass(frozen=True)
class RowCounts:
    """The counts per image of a scored row."""

    confusion: CountTable
    boundary: BoundaryTable | None = None
    """None without a boundary ratio, and where counts are older."""


def write_counts(
    path: Path,
    rows: Mapping[str, RowCounts],
    provenance: Provenance,
    tags: Mapping[str, Sequence[int]],
) -> str:
    """Atomically write the counts of a product's rows, all over the same images.

    Args:
        rows: by name, e.g. ``fixed`` or ``single_crf``.
        tags: 0-based classes of each image.

    Returns:
        The sha256 of the file; equal counts of equal origin give equal files.
    """
    ids = next(iter(rows.values())).confusion.ids
    tables: dict[str, SparseTable] = {}
    for name, row in rows.items():
        tables[name] = row.confusion
        if row.boundary:
            tables[name + _BOUNDARY] = row.boundary
    with ShardWriter(path, kind=KIND, ids=[_IDS, *tables], provenance=provenance) as writer:
        names = np.frombuffer(json.dumps(ids).encode(), np.uint8)
        tag_bounds = np.cumsum([0, *(len(tags[image]) for image in ids)], dtype=np.int64)
        tag = np.array([index for image in ids for index in tags[image]], np.uint16)
        writer.add(Item(_IDS, {"ids": names, "tag_bounds": tag_bounds, "tag": tag}))
        for name, table in tables.items():
            assert table.ids == ids
            arrays = {"bounds": table.bounds, "cell": table.cell, "count": table.count}
            writer.add(Item(name, arrays, {"labels": table.labels}))
    return digest_file(path)


def read_counts(path: Path, row: str, sha256: str) -> CountTable:
    """Read the confusion counts of one row.

    Args:
        path: what `write_counts` wrote.
        sha256: that the file must have.

    Raises:
        ArtifactError: the file is missing, damaged or another one than the record names.
    """
    with _checked(path, sha256) as shard:
        return _read(shard, row, CountTable)


def read_boundary(path: Path, row: str, sha256: str) -> BoundaryTable | None:
    """Read the boundary counts of one row; None where it has none. See `read_counts`."""
    with _checked(path, sha256) as shard:
        name = row + _BOUNDARY
        return _read(shard, name, BoundaryTable) if name in shard else None


def read_tags(path: Path, sha256: str) -> dict[str, tuple[int, ...]]:
    """Read the tags of the images, 0-based classes; empty where counts are older.

    Args:
        path: what `write_counts` wrote.
        sha256: that the file must have.

    Raises:
        ArtifactError: as `read_counts`.
    """
    with _checked(path, sha256) as shard:
        arrays, ids = shard.read(_IDS).arrays, _ids(shard)
    if "tag" not in arrays:
        return {}
    tags = np.split(arrays["tag"], arrays["tag_bounds"][1:-1])
    return {image: tuple(row.tolist()) for image, row in zip(ids, tags, strict=True)}


@contextmanager
def _checked(path: Path, sha256: str) -> Iterator[Shard]:
    remedy = "score again, and leave it next to its JSON file"
    if not path.is_file():
        raise ArtifactError(f"{path}: no such counts per image; {remedy}")
    if (digest := digest_file(path)) != sha256:
        raise ArtifactError(
            f"{path}: has the sha256 {digest[:12]}…, its record names {sha256[:12]}…; {remedy}"
        )
    with Shard(path, kind=KIND) as shard:
        yield shard


def _ids(shard: Shard) -> tuple[str, ...]:
    return tuple(json.loads(shard.read(_IDS).arrays["ids"].tobytes()))


def _read(shard: Shard, name: str, table: type[AnyTable]) -> AnyTable:
    item = shard.read(name)
    arrays = {array: item.arrays[array] for array in ("bounds", "cell", "count")}
    return table(labels=int(item.attrs["labels"]), ids=_ids(shard), **arrays)
