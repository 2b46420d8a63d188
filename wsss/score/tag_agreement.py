"""Whether ground truth and image-level tags speak of the same objects.

Masks of 0 and 255, of another numbering or with an adaptive palette are valid label maps, and their
scores are plausible numbers. But they contradict the tags. In VOC and COCO tags and truth differ in
a few images only: small, difficult or crowded objects may have no pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict

from wsss.data.counted import first_names
from wsss.score.metrics.image_counts import CountTable
from wsss.score.truth.errors import TruthError

_MOST_WITHOUT_TAGS: Final = 0.5
"""Share of the images whose truth shows none of their tags; more is an error."""
_FEWEST_IMAGES: Final = 2
"""A single image is no evidence."""
_FEWEST_EMPTY: Final = 5
"""Images of a class; if the truth of all of them is background or void, that is an error."""
_WARN_WITHOUT_TAGS, _WARN_OTHER_OBJECTS = 0.05, 0.1
_MOST_LABELS = 6


class TagAgreement(BaseModel):
    """How many images have a truth that fits their tags. Images without a tag do not count."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int
    """Scored images that have a tag."""
    without_tags: int
    """Of these: the truth has no pixel of any tag."""
    with_other_objects: int
    """Of these: the truth has an object that no tag names."""
    absent: dict[str, int]
    """Class → number of images with this tag, where none of their truths has a pixel of it."""

    @property
    def warnings(self) -> list[str]:
        """What a person should look at before believing the scores."""
        return list(self._warnings())

    def _warnings(self) -> Iterator[str]:
        if self.absent:
            counts = [f"{name} ({count} images)" for name, count in self.absent.items()]
            yield f"tagged, but in no truth of these images: {first_names(counts)}"
        if self.without_tags > _WARN_WITHOUT_TAGS * self.images:
            yield f"{self.without_tags} of {self.images} images: the truth shows none of their tags"
        if self.with_other_objects > _WARN_OTHER_OBJECTS * self.images:
            yield (
                f"{self.with_other_objects} of {self.images} images: the truth shows objects that "
                "no tag names"
            )


def compare_with_tags(
    table: CountTable, tags: Mapping[str, Sequence[int]], labels: Sequence[str], truth: str
) -> TagAgreement:
    """Compare the labels that were counted in each image's truth with its tags.

    Args:
        tags: image id → 0-based classes.
        labels: names, background first.
        truth: where the truth lies, for messages.

    Raises:
        TruthError: they cannot belong together.
    """
    image = np.repeat(np.arange(len(table.ids)), np.diff(table.bounds))
    shown, tagged = np.zeros((2, len(table.ids), table.labels), bool)
    shown[image, table.cell // table.labels] = True
    shown[:, 0] = False
    for row, name in zip(tagged, table.ids, strict=True):
        row[[index + 1 for index in tags[name]]] = True
    has_tag, counts = tagged.any(axis=1), tagged.sum(axis=0)
    without_tags = has_tag & ~(shown & tagged).any(axis=1)
    absent = (counts > 0) & ~(shown & tagged).any(axis=0)
    agreement = TagAgreement(
        images=int(has_tag.sum()),
        without_tags=int(without_tags.sum()),
        with_other_objects=int((has_tag & (shown & ~tagged).any(axis=1)).sum()),
        absent={labels[k]: int(counts[k]) for k in np.flatnonzero(absent).tolist()},
    )
    undrawn = absent & (counts >= _FEWEST_EMPTY) & ~tagged[shown.any(axis=1)].any(axis=0)
    mostly_contrary = agreement.without_tags > _MOST_WITHOUT_TAGS * agreement.images
    if mostly_contrary and agreement.images >= _FEWEST_IMAGES:
        what = f"of {agreement.without_tags} of {agreement.images} images shows none of their tags"
        example = int(np.flatnonzero(without_tags)[0])
    elif undrawn.any():
        k = int(np.flatnonzero(undrawn)[0])
        what = f"of all {counts[k]} images tagged {labels[k]!r} shows no object"
        example = int(np.flatnonzero(tagged[:, k])[0])
    else:
        return agreement
    classes, objects = (
        ", ".join(np.array(labels)[rows[example]].tolist()) for rows in (tagged, shown)
    )
    raise TruthError(
        f"{truth}: contradicts the tags: the ground truth {what}, e.g. {table.ids[example]!r} is "
        f"tagged {classes}, its truth shows {objects or 'background (0) and void (255) alone'}. "
        f"Label k is the k-th class: {_numbered(labels)}. Mend the ground truth (masks of 0 and "
        "255 and those with a palette of their own are numbered otherwise), or mend the tags"
    )


def _numbered(labels: Sequence[str]) -> str:
    """``0 background, 1 cat …``."""
    names = [f"{number} {name}" for number, name in enumerate(labels[:_MOST_LABELS])]
    return ", ".join(names) + " …" * (len(labels) > _MOST_LABELS)
