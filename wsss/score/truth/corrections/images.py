"""The images and labels of a run, by the names that other programs give them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

import numpy as np
from jaxtyping import UInt8

from wsss.data.datasets.classes import (
    ClassList,
    is_background,
    nearest,
    spelling,
    spellings,
    unicode_form,
)
from wsss.data.images.read import PHOTO_EXTENSIONS
from wsss.data.manifest import Manifest, Sample
from wsss.labels.ignore import IGNORED
from wsss.score.truth.errors import TruthError

UNSURE: Final = "unsure"
"""The label that exports give to pixels that are unsure; it is read as 255."""


@dataclass(frozen=True)
class Correction:
    """A corrected mask."""

    sample: Sample
    labels: UInt8[np.ndarray, "height width"]


class RunImages:
    """Finds images and labels of a run by foreign names.

    Args:
        manifest: the images of the run.
    """

    def __init__(self, manifest: Manifest, classes: ClassList) -> None:
        self._by_id: dict[str, Sample] = {}
        self._by_name: dict[str, list[Sample]] = {}
        for sample in manifest:
            self._by_id.setdefault(sample.id, sample)
            self._by_name.setdefault(PurePosixPath(sample.id).name, []).append(sample)
        self._labels = {name: index + 1 for name, index in spellings(classes).items()}
        self._classes = classes

    def find(self, name: str) -> Sample | None:
        """The image of a name: an id or a path, with its ending or without; None if unknown.

        Folders before the id do not count. A bare name may leave out the folders of the id.
        """
        path = PurePosixPath(unicode_form(name.replace("\\", "/")))
        tails = [PurePosixPath(*path.parts[start:]) for start in range(len(path.parts))]
        for tail in tails:
            for text in (str(tail), str(_without_ending(tail))):
                if text in self._by_id:
                    return self._by_id[text]
        for text in (path.name, _without_ending(path).name):
            if len(samples := self._by_name.get(text, [])) == 1:
                return samples[0]
        return None

    def label(self, name: str, where: str) -> int:
        """The label of a word: a class, the background, or ``unsure`` (255).

        Args:
            name: as a program wrote it.
            where: the file, for messages.

        Raises:
            TruthError: the run has no such class.
        """
        if (label := self._labels.get(spelling(name))) is not None:
            return label
        if is_background(name):
            return 0
        if spelling(name) == UNSURE:
            return IGNORED
        raise TruthError(
            f"{where}: the label {name!r} is no class of the run{self._nearest(name)}; rename it "
            "there, or import into the run that it belongs to"
        )

    @property
    def label_count(self) -> int:
        """Number of labels, background included."""
        return self._classes.label_count

    def check_size(self, sample: Sample, size: Sequence[int], where: str) -> None:
        """Refuse a mask of another size than its image.

        Args:
            size: height and width of the mask.
            where: the file, for messages.

        Raises:
            TruthError: they differ.
        """
        if tuple(size) != (sample.height, sample.width):
            raise TruthError(
                f"{where}: the mask of {sample.id!r} is {size[1]} x {size[0]} pixels, its image is "
                f"{sample.width} x {sample.height}; export it at the size of the image"
            )

    @functools.cached_property
    def _names(self) -> tuple[str, ...]:
        return ("background", UNSURE, *self._classes.names)

    def _nearest(self, name: str) -> str:
        return nearest(name, self._names) or f" ({', '.join(self._names[:9])} …)"


def _without_ending(path: PurePosixPath) -> PurePosixPath:
    """Without that of a picture; ``scan.02`` is the name of an image."""
    return path.with_suffix("") if path.suffix.lower() in PHOTO_EXTENSIONS else path
