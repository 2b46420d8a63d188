"""Read arrays of HDF5 files, and nothing else that such files can contain.

The format has links to other files, data stored in other files, filters loaded as plugins, and
arrays that take no room on disk and any amount in memory. Our files have none of these.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from wsss.errors import ReadError

_FILTERS: Final = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE}
_UNFOLDS: Final = 1100  # deflate makes of a byte 1032 at most
_SPARE: Final = 2**16
_OPEN_FILES: Final = 32  # opening one again takes 0.3 ms


class Hdf5File:
    """A file that is open while it is read; between reads it may be closed.

    A data set may have more shards than a process may open files. Of all objects of this class
    those that were read last hold an open file. Threads take turns, as they do in HDF5.

    Args:
        path: a regular file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: h5py.File | None = None
        self._state: tuple[int, ...] | None = None

    @contextmanager
    def opened(self) -> Iterator[h5py.File]:
        """The open file.

        Raises:
            OSError: it is missing, no regular file, or no HDF5.
            ReadError: it was replaced since the first time.
        """
        with _turn:
            if self._file is None:
                self._file = self._open()
            _most_recent[weakref.ref(self)] = None
            _most_recent.move_to_end(weakref.ref(self))
            while len(_most_recent) > _OPEN_FILES:
                oldest = _most_recent.popitem(last=False)[0]()
                if oldest is not None:
                    oldest.close()
            yield self._file

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with _turn:
            _most_recent.pop(weakref.ref(self), None)
            file, self._file = self._file, None
            if file is not None:
                file.close()

    def _open(self) -> h5py.File:
        status = os.stat(self._path)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is no regular file")
        state = status.st_ino, status.st_size, status.st_mtime_ns
        if self._state not in (None, state):
            raise ReadError(f"{self._path}: was replaced meanwhile; run the same command again")
        self._state = state
        return h5py.File(self._path, "r")


_turn = threading.RLock()
_most_recent: OrderedDict[weakref.ref[Hdf5File], None] = OrderedDict()
"""The open files, the one that was read last at the end."""


def write_array(group: h5py.Group, name: str, array: np.ndarray) -> None:
    """Write an array of numbers, compressed where that pays."""
    packed = (
        {"compression": "gzip", "compression_opts": 1, "shuffle": True} if array.size > 1024 else {}
    )
    group.create_dataset(name, data=np.ascontiguousarray(array), track_times=False, **packed)


def read_array(
    file: h5py.File, name_path: str, expected: Sequence[Any] | None = None
) -> np.ndarray:
    """Read an array of numbers.

    Args:
        name_path: names from the root on, with ``/`` between them.
        expected: numpy's type string and the shape that the array must have; None for any.

    Raises:
        KeyError: there is none.
        ValueError: it is a link, no array of numbers, of another type or shape, stored in another
            way than ours, or larger than what the file holds can unfold to.
        OSError: its bytes are damaged.
    """
    group: h5py.Group = file
    for name in name_path.split("/"):
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name} in {name_path} leads elsewhere")
        group = group[name]
    dataset = group
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "biuf":
        raise ValueError(f"{name_path} is no array of numbers")
    creation = dataset.id.get_create_plist()
    filters = {creation.get_filter(index)[0] for index in range(creation.get_nfilters())}
    if dataset.is_virtual or creation.get_external_count() or filters - _FILTERS:
        raise ValueError(f"{name_path} is stored in a way that ours are not")
    stored, needed = dataset.id.get_storage_size(), dataset.size * dataset.dtype.itemsize
    if stored > file.id.get_filesize() or needed > _UNFOLDS * stored + _SPARE:
        raise ValueError(f"{name_path} says {dataset.shape}, of which {stored} bytes are stored")
    array: np.ndarray = dataset[()]
    if expected is not None:
        kind, shape = expected
        if array.dtype.str != kind or array.shape != tuple(shape):
            raise ValueError(f"is {array.dtype.str} {array.shape}, expected {kind} {tuple(shape)}")
    return array
