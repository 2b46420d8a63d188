"""Errors of data sets; the message names the file, its problem and what to do."""

from __future__ import annotations

from pathlib import Path

from wsss.errors import WsssError


class DataError(WsssError, ValueError):
    """The data set's lists, tags or class names cannot be read as configured."""


class ImageError(WsssError, ValueError):
    """An image file cannot be used."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[ImageError], tuple[Path, str]]:
        return type(self), (self.path, self.reason)  # pickling, between processes


class IngestError(WsssError, RuntimeError):
    """Too many images cannot be used; the message names the quarantine table."""
