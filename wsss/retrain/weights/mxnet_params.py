"""Read MXNet's ``.params`` files without MXNet, whose project is retired.

Such a file is a list of arrays and then a list of their names, little-endian throughout:

    uint64  0x112                         it is a list of arrays
    uint64  0                             reserved
    uint64  number of arrays, and each:
        uint32  0xF993FAC9, then int32 0  format 2 (MXNet 1.0), storage type dense
             or 0xF993FAC8                format 1 (MXNet 0.9)
             or neither: format 0, and this is already the number of dimensions
        uint32  number of dimensions      (formats 1 and 2)
        int64   each dimension            (format 0: uint32)
        int32   device type, int32 device number
        int32   element type: 0 float32, 1 float64, 2 float16, 3 uint8, 4 int32, 5 int8, 6 int64
        the elements, row by row
      where an array of no dimensions ends after their number
    uint64  number of names, and each: uint64 length, UTF-8 text

Sparse arrays and format 3 (NumPy shapes, MXNet 1.6) are refused: no published weights use them.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from wsss.artifacts.errors import ArtifactError
from wsss.errors import raise_unless_about

_LIST, _FORMAT1, _FORMAT2, _FORMAT3 = 0x112, 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_TYPES = dict(enumerate(("<f4", "<f8", "<f2", "u1", "<i4", "i1", "<i8")))
_MOST_DIMENSIONS = 32


def read_params(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a ``.params`` file by name, as stored (``arg:…`` and ``aux:…``).

    Every length is compared with the rest of the file before it is read.

    Raises:
        ArtifactError: it is no such file, is damaged, or holds what is not supported.
    """
    try:
        with path.open("rb") as stream:
            return _Reader(path, stream, path.stat().st_size).arrays()
    except OSError as error:
        raise_unless_about(path, error)
        raise ArtifactError(f"{path}: cannot be read ({error.strerror})") from None


class _Reader:
    def __init__(self, path: Path, stream: BinaryIO, size: int) -> None:
        self._path, self._stream, self._size = path, stream, size

    def arrays(self) -> dict[str, np.ndarray]:
        if self._size < 24 or self._number("Q") != _LIST or self._number("Q") != 0:
            raise ArtifactError(f"{self._path}: is no MXNet parameter file (no list of arrays)")
        arrays = [self._array() for _ in range(self._count("arrays"))]
        names = [self._name() for _ in range(self._count("names"))]
        if len(names) != len(arrays) or len(set(names)) != len(names):
            raise self._damaged(
                f"{len(arrays)} arrays, but {len(set(names))} different names for them"
            )
        if remaining := self._remaining():
            raise self._damaged(f"{remaining} bytes follow the last name")
        return dict(zip(names, arrays, strict=True))

    def _array(self) -> np.ndarray:
        head, form = self._number("I"), 0
        if head == _FORMAT3:
            raise self._damaged("arrays with NumPy shapes (format 3) are not supported")
        if head in (_FORMAT1, _FORMAT2):
            form = 2 if head == _FORMAT2 else 1
            if form == 2 and (storage := self._number("i")) != 0:
                raise self._damaged(f"storage type {storage} is not supported, only 0 (dense)")
            head = self._number("I")
        if head > _MOST_DIMENSIONS:
            raise self._damaged(f"an array of {head} dimensions")
        shape = [self._number("q" if form else "I") for _ in range(head)]
        if not shape:
            return np.zeros(0, np.float32)
        self._number("ii")  # the device that held it
        kind = self._number("i")
        if kind not in _TYPES:
            raise self._damaged(f"element type {kind} is not known")
        if min(shape) < 0:
            raise self._damaged(f"an array of shape {shape}")
        dtype = np.dtype(_TYPES[kind])
        return np.frombuffer(self._bytes(math.prod(shape) * dtype.itemsize), dtype).reshape(shape)

    def _name(self) -> str:
        raw = self._bytes(self._number("Q"))
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self._damaged(f"a name that is no text: {raw[:40]!r}") from None

    def _count(self, what: str) -> int:
        count = self._number("Q")
        if count > self._remaining() // 4:  # an array takes at least its first number, a name more
            raise self._damaged(f"{count} {what} in the {self._remaining()} bytes that are left")
        return count

    def _number(self, form: str) -> int:
        form = f"<{form}"
        values: tuple[Any, ...] = struct.unpack(form, self._bytes(struct.calcsize(form)))
        return int(values[0])

    def _bytes(self, count: int) -> bytes:
        if count > (remaining := self._remaining()):
            raise self._damaged(f"{count} bytes are announced, {remaining} are left")
        return self._stream.read(count)

    def _remaining(self) -> int:
        return self._size - self._stream.tell()

    def _damaged(self, what: str) -> ArtifactError:
        return ArtifactError(
            f"{self._path}: is damaged or no MXNet parameter file, before byte "
            f"{self._stream.tell()}: {what}; fetch the file again"
        )
