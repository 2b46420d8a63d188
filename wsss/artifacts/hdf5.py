"""Read arrays of HDF5 files, and nothing else that such files can contain.

The format has links to other files, data stored in other files, filters loaded as plugins, and
arrays that take no room on disk and any amount in memory. Our files have none of these.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

_FILTERS: Final = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE}
_UNFOLDS: Final = 1100  # deflate makes of a byte 1032 at most
_SPARE: Final = 2**16


def open_hdf5(path: Path) -> h5py.File:
    """Open a regular file for reading.

    Raises:
        OSError: it is missing, no regular file, or no HDF5.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "is no regular file")
    return h5py.File(path, "r")


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
        file: open.
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
