"""What a CAM source is: maps of an image's own classes on a grid, image by image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float16

from wsss.config.base import Section
from wsss.data.manifest import Sample


@dataclass(frozen=True)
class CamMaps:
    """The maps of one image, one row a tag, in the order of ``sample.tags``."""

    sample: Sample
    cam: Float16[np.ndarray, "classes h w"]
    """In 0 … 1, on the source's grid."""
    refined: Float16[np.ndarray, "classes rows columns"] | None
    """After the affinity, in 0 … 1, on the encoder's patch grid; None where it is off."""
    probabilities: tuple[float, ...] | None = None
    """Of each class on the image; None where the source does not know them."""


@runtime_checkable
class CamSource(Protocol):
    """The interface; files, keys and reuse are the business of `wsss.cams.stage`."""

    sections: Mapping[str, Section]
    """Configuration sections that decide the maps."""
    weights: Mapping[str, str]
    """sha256 of the weights that are used, by name."""

    def key(self, sample: Sample) -> str:
        """Digest of what else decides the maps of an image: prompts, seed file."""

    def maps(self, samples: Sequence[Sample]) -> Iterator[CamMaps]:
        """The maps of the samples, in any order; of an image, whatever the others are."""
