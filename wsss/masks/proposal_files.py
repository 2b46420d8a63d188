"""Files of mask proposals: one JSON per image, as SAM's automatic mask generator writes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from wsss.config.safe_yaml import read_bytes
from wsss.data.datasets.candidates import Candidate
from wsss.data.errors import DataError
from wsss.data.images.rle import rle_mask
from wsss.data.manifest import Sample, item_path
from wsss.errors import raise_unless_about
from wsss.labels.proposals import Proposal

_MOST_BYTES = 2**28
_MOST_PIXELS = 2**31  # in the boxes of all proposals of an image, one byte each
_SHOWN = 5
_FORM = "[{segmentation: {size: [height, width], counts}, …}, …]"


def proposal_path(folder: Path, image: str) -> Path:
    """The file of an image id."""
    return item_path(folder, image, ".json")


def proposal_files(folder: Path, images: Iterable[str]) -> dict[str, Path]:
    """The file of each image; it need not be there."""
    return {image: proposal_path(folder, image) for image in images}


def check_files(folder: Path, samples: Sequence[Sample | Candidate]) -> None:
    """Refuse to begin where files are missing.

    Args:
        folder: ``masks.proposals.path``.
        samples: the images; those without tags need no file.

    Raises:
        DataError: there is no such folder, or images have no file; it says how many and which.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder; masks.proposals.path must name that of the proposals"
        )
    needed = [sample.id for sample in samples if sample.tags]
    missing = [image for image in needed if not proposal_path(folder, image).is_file()]
    if missing:
        more = ", …" if len(missing) > _SHOWN else ""
        raise DataError(
            f"{folder}: {len(missing)} of {len(needed)} images have no mask proposals, expected "
            f"<id>.json each: {', '.join(missing[:_SHOWN])}{more}; run SAM's automatic mask "
            "generator on them, or take another masks.refine than sam"
        )


def read_proposals(file: Path, height: int, width: int) -> list[Proposal]:
    """The proposals of an image, in the order of the file.

    Args:
        file: a list of annotations, or a mapping that has it under ``annotations`` (SA-1B).
        height, width: of the image, pixels.

    Raises:
        DataError: the file cannot be read, holds something else, its masks are of another size, or
            they would not fit into memory.
    """
    try:
        content = json.loads(read_bytes(file, _MOST_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise_unless_about(file, error)
        raise DataError(f"{file}: is no JSON of mask proposals ({error})") from None
    entries = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise DataError(f"{file}: holds no list of mask proposals; expected {_FORM}")
    proposals, pixels = [], 0
    for number, entry in enumerate(entries):
        try:
            segmentation = entry["segmentation"]
            if not isinstance(segmentation, dict):
                raise TypeError("its segmentation is no RLE")
            proposals.append(Proposal.of(rle_mask(segmentation, height, width)))
        except (ValueError, TypeError, LookupError, ArithmeticError) as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise DataError(
                f"{file}: proposal {number} {reason}; expected {_FORM} at the size of the photo, "
                f"[{height}, {width}]"
            ) from None
        pixels += proposals[-1].inside.size
        if pixels > _MOST_PIXELS:
            raise DataError(
                f"{file}: the boxes of its proposals have more than {_MOST_PIXELS} pixels "
                f"together, by proposal {number}; leave out proposals that overlap"
            )
    return proposals
