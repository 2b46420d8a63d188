"""Confusion counts per image, for statistics over images that are computed later.

An image's matrix is almost empty: some labels in the truth, some in the prediction. Only the cells
that are not 0 are stored, and all images of a row lie in three flat arrays. 40,000 images with 20
cells each take 8 MB of memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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
_CELL = 2 + 8  # bytes


class ImageCounts:
    """Collects counts per image; parts can be merged in any order.

    Args:
        labels: number of labels, background included.
    """

    def __init__(self, labels: int) -> None:
        self.labels = labels
        # The bytes of n uint16 cells and n int64 counts: arrays weigh more than what they hold.
        self._cells: dict[str, bytes] = {}

    def add(self, image: str, matrix: Int64[np.ndarray, "truth prediction"]) -> None:
        """Store the matrix of one image.

        Raises:
            ValueError: the image was counted before.
        """
        if image in self._cells:
            raise ValueError(f"{image!r} was counted twice")
        flat = matrix.ravel()
        cell = np.flatnonzero(flat)
        self._cells[image] = cell.astype(np.uint16).tobytes() + flat[cell].tobytes()

    def merge(self, other: ImageCounts) -> None:
        """Add the images of another part.

        Raises:
            ValueError: both parts counted an image.
        """
        if twice := self._cells.keys() & other._cells.keys():
            raise ValueError(f"{min(twice)!r} was counted twice")
        self._cells |= other._cells

    def table(self) -> CountTable:
        """All images, in the order of their ids."""
        ids = tuple(sorted(self._cells))
        lengths = [len(self._cells[image]) // _CELL for image in ids]
        pairs = list(zip((self._cells[image] for image in ids), lengths, strict=True))
        return CountTable(
            labels=self.labels,
            ids=ids,
            bounds=np.cumsum([0, *lengths], dtype=np.int64),
            cell=np.frombuffer(b"".join(stored[: 2 * n] for stored, n in pairs), np.uint16),
            count=np.frombuffer(b"".join(stored[2 * n :] for stored, n in pairs), np.int64),
        )


@dataclass(frozen=True)
class CountTable:
    """Confusion counts of images: those of image ``i`` lie between ``bounds[i]`` and the next."""

    labels: int
    ids: tuple[str, ...]
    """In rising order."""
    bounds: Int64[np.ndarray, " bounds"]
    cell: UInt16[np.ndarray, " cells"]
    """``true label * labels + predicted label``."""
    count: Int64[np.ndarray, " cells"]
    """Pixels."""

    def total(self) -> Int64[np.ndarray, "truth prediction"]:
        """The confusion matrix over all images."""
        total = np.zeros(self.labels**2, np.int64)
        np.add.at(total, self.cell, self.count)
        return total.reshape(self.labels, self.labels)

    def of(self, images: Iterable[str]) -> CountTable:
        """The counts of some of the images.

        Raises:
            KeyError: an image was not counted.
        """
        index = {image: i for i, image in enumerate(self.ids)}
        ids = sorted(set(images))
        rows = [slice(*self.bounds[index[image] :][:2]) for image in ids]
        return CountTable(
            labels=self.labels,
            ids=tuple(ids),
            bounds=np.cumsum([0, *(row.stop - row.start for row in rows)], dtype=np.int64),
            cell=np.concatenate([np.zeros(0, np.uint16), *(self.cell[row] for row in rows)]),
            count=np.concatenate([np.zeros(0, np.int64), *(self.count[row] for row in rows)]),
        )

    def sums(self) -> scipy.sparse.csr_array:
        """Per image the pixels hit, true and predicted of each label, one under the other.

        Returns:
            int64 of shape (3 * labels, images): what the IoU of any set of images follows from.
        """
        true, predicted = np.divmod(self.cell.astype(np.int64), self.labels)
        image = np.repeat(np.arange(len(self.ids)), np.diff(self.bounds))
        hit = true == predicted
        rows = np.concatenate([true[hit], self.labels + true, 2 * self.labels + predicted])
        columns = np.concatenate([image[hit], image, image])
        values = np.concatenate([self.count[hit], self.count, self.count])
        from scipy.sparse import csr_array

        return csr_array((values, (rows, columns)), shape=(3 * self.labels, len(self.ids)))


def write_counts(path: Path, tables: Mapping[str, CountTable], provenance: Provenance) -> str:
    """Atomically write the counts of a product's rows, all over the same images.

    Args:
        path: file to write.
        tables: by row, e.g. ``fixed`` or ``single_crf``.
        provenance: of the counts.

    Returns:
        The sha256 of the file; equal counts of equal origin give equal files.
    """
    ids = next(iter(tables.values())).ids
    with ShardWriter(path, kind=KIND, ids=[_IDS, *tables], provenance=provenance) as writer:
        names = np.frombuffer(json.dumps(ids).encode(), np.uint8)
        writer.add(Item(_IDS, {"ids": names}))
        for row, table in tables.items():
            assert table.ids == ids
            arrays = {"bounds": table.bounds, "cell": table.cell, "count": table.count}
            writer.add(Item(row, arrays, {"labels": table.labels}))
    return digest_file(path)


def read_counts(path: Path, row: str, sha256: str) -> CountTable:
    """Read the counts of one row.

    Args:
        path: what `write_counts` wrote.
        row: which of its rows.
        sha256: that the file must have.

    Raises:
        ArtifactError: the file is missing, damaged or another one than the record names.
    """
    remedy = "score again, and leave it next to its JSON file"
    if not path.is_file():
        raise ArtifactError(f"{path}: no such counts per image; {remedy}")
    if (digest := digest_file(path)) != sha256:
        raise ArtifactError(
            f"{path}: has the sha256 {digest[:12]}…, its record names {sha256[:12]}…; {remedy}"
        )
    with Shard(path, kind=KIND) as shard:
        ids: Sequence[str] = json.loads(shard.read(_IDS).arrays["ids"].tobytes())
        item = shard.read(row)
    arrays = {name: item.arrays[name] for name in ("bounds", "cell", "count")}
    return CountTable(labels=int(item.attrs["labels"]), ids=tuple(ids), **arrays)
