"""Label maps of COCO that others made: folders of PNGs, as other papers provide them.

::

    <masks>/{train,val}2014/…    or    <masks>/{train,val}/…    or    <masks>/…
        COCO_val2014_000000000042.png    or    000000000042.png

Labels: 0 background, k the k-th of the 80 classes by ascending category id, 255 void.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from wsss.data.datasets.words import COCO_NAMES
from wsss.data.images.label_png import read_label_png
from wsss.labels.ignore import IGNORED
from wsss.score.truth.errors import TruthError
from wsss.score.truth.sources import PngTruth


@dataclass(frozen=True, slots=True)
class CocoPngTruth(PngTruth):
    """Truth in a PNG that others made."""

    def read(self) -> UInt8[np.ndarray, "height width"]:
        """Read the label map.

        Raises:
            ImageError: the file is damaged or holds no labels.
            TruthError: it holds labels that COCO does not have.
        """
        labels = read_label_png(self.path)
        wrong = np.unique(labels[(labels > len(COCO_NAMES)) & (labels != IGNORED)])
        if wrong.size:
            raise TruthError(
                f"{self.path}: holds labels {', '.join(map(str, wrong.tolist()))}, expected 0 for "
                f"background, 1 … {len(COCO_NAMES)} for COCO's classes in the order of their "
                f"category ids, and {IGNORED} for void; category ids themselves go up to 90: write "
                "each as its place among the 80"
            )
        return labels


def find_pngs(masks: Path, photos: Mapping[str, Path]) -> dict[str, CocoPngTruth]:
    """The PNG of each image; images that have none are left out. No PNG is opened.

    Args:
        photos: image id → its photo, in a folder that is called as its part.
    """
    places: dict[str, list[tuple[Path, set[str]]]] = {}
    pngs = {}
    for image, photo in photos.items():
        part = photo.parent.name
        if part not in places:
            places[part] = _places(masks, part)
        names = (f"{photo.stem}.png", f"{photo.stem.rpartition('_')[2]}.png")
        for folder, existing in places[part]:
            if name := next((name for name in names if name in existing), None):
                pngs[image] = CocoPngTruth(folder, name)
                break
    return pngs


def _places(masks: Path, part: str) -> list[tuple[Path, set[str]]]:
    """Folders in which the PNGs of a part may lie, each with the names of its files."""
    folders = (masks / part, masks / part.removesuffix("2014"), masks)
    return [(folder, set(os.listdir(folder))) for folder in folders if folder.is_dir()]
