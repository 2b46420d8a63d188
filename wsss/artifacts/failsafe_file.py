"""A file that never fails when HDF5 writes to it.

HDF5 buffers what it has not written. On a full disk it therefore fails again at every object that
is released, prints a traceback each time, and may crash when the process ends. This file remembers
the first failure and ignores later writes; the writer of the shard asks for the failure and stops.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


class FailsafeFile:
    """What h5py asks of a Python file; no method may raise, HDF5 would crash.

    Args:
        path: the file, which is created.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream = path.open("w+b", buffering=0)
        self._position = 0
        self.failure: OSError | None = None
        """The first one, if any."""

    def check(self) -> None:
        """Raise the first failure.

        Raises:
            OSError: something was not written.
        """
        if self.failure is not None:
            raise self.failure

    def write(self, data: Any) -> int:
        """Write all of a buffer."""
        remaining = memoryview(data).cast("B")
        size = len(remaining)
        while remaining and self.failure is None:
            try:
                written = os.pwrite(self._stream.fileno(), remaining, self._position)
            except OSError as error:
                self._remember(error)
                break
            self._position += written
            remaining = remaining[written:]
        self._position += len(remaining)
        return size

    def read(self, size: int) -> bytes:
        """Read back; h5py tells a file by this method and uses `readinto`."""
        buffer = bytearray(size)
        self.readinto(memoryview(buffer))
        return bytes(buffer)

    def readinto(self, target: Any) -> int:
        """Read into a buffer; zeros after a failure."""
        buffer = memoryview(target).cast("B")
        content = os.pread(self._stream.fileno(), len(buffer), self._position)
        buffer[: len(content)] = content
        buffer[len(content) :] = bytes(len(buffer) - len(content))
        self._position += len(buffer)
        return len(buffer)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move."""
        if whence == os.SEEK_END:
            offset += os.fstat(self._stream.fileno()).st_size
        elif whence == os.SEEK_CUR:
            offset += self._position
        self._position = offset
        return offset

    def tell(self) -> int:
        """The position."""
        return self._position

    def truncate(self, size: int | None = None) -> int:
        """Set the length."""
        size = self._position if size is None else size
        if self.failure is None:
            try:
                os.ftruncate(self._stream.fileno(), size)
            except OSError as error:
                self._remember(error)
        return size

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        """Close the file."""
        try:
            self._stream.close()
        except OSError as error:
            self._remember(error)

    def _remember(self, error: OSError) -> None:
        if self.failure is None:
            error.filename = str(self._path)
            self.failure = error
