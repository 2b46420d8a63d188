"""What a person should look at first: a row per photo and tag, and what is odd about it."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence

from wsss.photos.classes import ClassTable
from wsss.photos.record import Entry, Tag

REVIEW = "review.csv"
_COLUMNS = ("photo", "tag", "clip_probability", "share_of_pixels", "share_unsure", "flags")
_MOST_SHARE, _LEAST_PROBABILITY = 0.9, 0.01
NO_PIXEL = "tag without a pixel"
TOO_LARGE = "over 90 % of the photo"
IMPROBABLE = "probability under 0.01"
NARROW = "photo longer than six times its width"
_MOST_ASPECT = 6
_LEAST_ACROSS = 512 / _MOST_ASPECT
"""Pixels: five patches of 16."""


def is_narrow(width: int, height: int, long_side: int | None) -> bool:
    """Whether a photo is so long that few patches are left across it.

    Args:
        width: of the photo, pixels.
        height: likewise.
        long_side: that the photo is scaled to for the network, pixels; None: it keeps its size.
    """
    short, long = sorted((width, height))
    across = short if long_side is None else short * long_side / long
    return long > _MOST_ASPECT * short and across < _LEAST_ACROSS


def median_unsure(entries: Sequence[Entry]) -> float:
    """The median over photos of the share of unsure pixels; 0 without photos."""
    return statistics.median(entry.unsure for entry in entries) if entries else 0.0


def flags(entry: Entry, tag: Tag) -> list[str]:
    """What is odd about a tag of a photo."""
    share = entry.shares.get(tag.label, 0.0)
    odd = {
        NO_PIXEL: share == 0,
        TOO_LARGE: share > _MOST_SHARE,
        IMPROBABLE: tag.probability is not None and tag.probability < _LEAST_PROBABILITY,
        NARROW: entry.narrow,
    }
    return [text for text, applies in odd.items() if applies]


def photo_flags(entry: Entry) -> list[tuple[int, str]]:
    """What is odd about a photo: label and flag of its tags."""
    return [(tag.label, text) for tag in entry.tags for text in flags(entry, tag)]


def doubt(entry: Entry) -> float:
    """By how much a photo needs a look: the number of its flags, and the share that is unsure."""
    return len(photo_flags(entry)) + entry.unsure


def review_csv(entries: Sequence[Entry], classes: ClassTable) -> str:
    """The table of all photos and tags, those of the most doubtful photos first."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for entry in sorted(entries, key=lambda entry: (-doubt(entry), entry.id)):
        for tag in entry.tags:
            share = entry.shares.get(tag.label, 0.0)
            probability = "" if tag.probability is None else f"{tag.probability:.4f}"
            writer.writerow(
                [
                    entry.id,
                    classes.names[tag.label],
                    probability,
                    f"{share:.4f}",
                    f"{entry.unsure:.4f}",
                    "; ".join(flags(entry, tag)),
                ]
            )
    return buffer.getvalue()
