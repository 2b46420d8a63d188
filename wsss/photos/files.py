"""The photos of a folder that need no tags."""

from __future__ import annotations

import logging
from pathlib import Path

from wsss.artifacts.digest import digest_file
from wsss.data.datasets.files import PhotoIndex, find_root
from wsss.data.errors import DataError, ImageError
from wsss.data.images.read import image_size
from wsss.data.ingest.triage import name_fault, same_id
from wsss.data.manifest import Sample
from wsss.photos.record import LeftOut

_log = logging.getLogger(__name__)


def photos_below(folder: Path) -> tuple[list[Sample], list[LeftOut]]:
    """The photos of a folder and its sub folders, without tags; a file gives that photo alone.

    Those that cannot be used are logged, too.

    Returns:
        The photos, and those that cannot be used.

    Raises:
        DataError: there is no such folder, or no photo in it.
    """
    if not folder.exists():
        raise DataError(f"{folder}: no such folder or photo")
    if folder.is_file():
        index = PhotoIndex(folder.parent)
        paths = [path for path in index.paths if path == folder]
    else:
        index = PhotoIndex(find_root(folder))
        paths = list(index.paths)
    samples: dict[str, Sample] = {}
    left_out: list[LeftOut] = []
    for path in paths:
        image = index.id(path)
        if reason := name_fault(image):
            left_out.append(left_out_photo(path, reason))
            continue
        if image in samples:
            left_out.append(left_out_photo(path, same_id(path, samples[image].path)))
            continue
        try:
            size = image_size(path)
        except ImageError as error:
            left_out.append(left_out_photo(path, error.reason))
            continue
        samples[image] = Sample(image, "train", path, *size, digest_file(path), ())
    if not samples:
        raise DataError(f"{folder}: no photo that can be read")
    return list(samples.values()), left_out


def left_out_photo(path: Path, reason: str) -> LeftOut:
    """Log that a photo has no mask, and give the entry for the record."""
    _log.warning("%s: left out: %s", path, reason)
    return LeftOut(str(path.absolute()), reason)
