"""Classes that occur together: does a method tell them apart?

A class whose images show it alone is easier to find than one that always comes with another: tags
do not say which pixels belong to which of the two. So the IoU of a class is taken over the images
that are tagged with it alone, over those tagged with others as well, and over those tagged with
each frequent partner; all from the confusion counts per image.

The IoU of a class over some images has its false positives in these images alone. It is therefore
higher than over all images, and the numbers of a class compare with each other only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, Integer

from wsss.score.metrics.confusion import iou_of
from wsss.score.metrics.image_counts import CountTable

PARTNERS = 5
"""Of each class, the most frequent ones."""
FEWEST_IMAGES = 5
"""That a class and a partner share; fewer say nothing."""


@dataclass(frozen=True)
class Subset:
    """A class in some of the images that are tagged with it."""

    images: int
    iou: float
    """NaN where the class has no pixel in truth or prediction of these images, or without any."""


@dataclass(frozen=True)
class Partner:
    """Another class in images of a class."""

    label: int
    subset: Subset
    """The class in the images tagged with both."""
    confused: float
    """Share of the true pixels of the class that are predicted as the partner there; NaN without
    any."""


@dataclass(frozen=True)
class Cooccurrence:
    """A class, alone and with others; labels have the background at 0."""

    label: int
    alone: Subset
    """In images that have no other tag."""
    together: Subset
    """In images that have another tag."""
    partners: tuple[Partner, ...]
    """The most frequent first; of equals the one with the lower label."""


def cooccurrences(
    table: CountTable, tags: Mapping[str, Sequence[int]], *, partners: int = PARTNERS
) -> Iterator[Cooccurrence]:
    """The classes that any image is tagged with, in the order of the labels.

    Args:
        tags: image id → 0-based classes.
        partners: at most so many of each class, of `FEWEST_IMAGES` images at least.
    """
    tagged = np.zeros((table.labels, len(table.ids)), bool)
    for column, image in enumerate(table.ids):
        tagged[[index + 1 for index in tags[image]], column] = True
    number_of_tags = tagged.sum(axis=0)
    sums, image_index = table.sums(), table.image_index
    for label in np.flatnonzero(tagged.any(axis=1)).tolist():
        here = tagged[label]
        # Pixels hit, true and predicted of the class, by image.
        counts = sums[[label, table.labels + label, 2 * table.labels + label]].toarray()
        cells = np.flatnonzero(table.cell // table.labels == label)
        truth = _Truth(table.cell[cells] % table.labels, image_index[cells], table.count[cells])
        shared = (tagged & here).sum(axis=1)
        shared[label] = 0
        frequent = np.argsort(-shared, kind="stable")[:partners].tolist()
        yield Cooccurrence(
            label,
            alone=_subset(counts, here & (number_of_tags == 1)),
            together=_subset(counts, here & (number_of_tags > 1)),
            partners=tuple(
                Partner(
                    other,
                    _subset(counts, here & tagged[other]),
                    truth.share_predicted_as(other, here & tagged[other]),
                )
                for other in frequent
                if shared[other] >= FEWEST_IMAGES
            ),
        )


@dataclass(frozen=True)
class _Truth:
    """Where the true pixels of a class went, by predicted label and image."""

    predicted: Integer[np.ndarray, " cells"]
    image_index: Int64[np.ndarray, " cells"]
    pixels: Int64[np.ndarray, " cells"]

    def share_predicted_as(self, label: int, images: Bool[np.ndarray, " images"]) -> float:
        """In some of the images; NaN without a true pixel there."""
        inside = images[self.image_index]
        total = int(self.pixels[inside].sum())
        pixels = int(self.pixels[inside & (self.predicted == label)].sum())
        return pixels / total if total else float("nan")


def _subset(counts: Int64[np.ndarray, "3 images"], images: Bool[np.ndarray, " images"]) -> Subset:
    hit, true, predicted = counts[:, images].sum(axis=1, keepdims=True)
    return Subset(int(images.sum()), float(iou_of(hit, true, predicted)[0]))
