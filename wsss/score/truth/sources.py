"""Where the truth of a single image comes from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from wsss.data.images.label_png import read_label_png


@runtime_checkable
class Source(Protocol):
    """Where the truth of an image comes from; small enough to be sent to another process."""

    def read(self) -> UInt8[np.ndarray, "height width"]:
        """Labels in [0, labels) and 255."""
        ...


@dataclass(frozen=True, slots=True)
class PngTruth:
    """Truth in an index PNG; folder and name are separate, since there is one per image."""

    folder: Path
    name: str

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / self.name

    def read(self) -> UInt8[np.ndarray, "height width"]:
        """Read the label map."""
        return read_label_png(self.path)
