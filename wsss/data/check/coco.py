"""Check whether a folder of COCO 2014 is complete."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from wsss.data.check.image_headers import Size, check_images
from wsss.data.check.report import Report
from wsss.data.datasets.coco import PARTS, Instances, instances_path, load_instances
from wsss.data.datasets.coco_reader import photo_path
from wsss.data.datasets.files import find_root
from wsss.data.errors import DataError

_log = logging.getLogger(__name__)
COUNTS = {"train": (82_783, 82_081), "val": (40_504, 40_137)}
"""Images of each part: all, and those with at least one object, which most papers use."""


def check_coco(
    root: str | Path, *, parts: Sequence[str] = PARTS, decode: bool = False, workers: int = 1
) -> Report:
    """Check the instances JSON files, their categories and counts, and the images.

    Args:
        parts: ``train``, ``val``.
        decode: decode every image in full, instead of reading headers.

    Raises:
        DataError: there is no such folder.
    """
    root = find_root(root)
    report = Report(f"COCO 2014 in {root}")
    sizes: dict[Path, Size | None] = {}
    for part in parts:
        path = instances_path(root, part)
        _log.info("reading %s", path)
        try:
            content = load_instances(path)
        except DataError as error:
            report.add(str(error), source="coco-annotations")
            continue
        _check_counts(part, path, content, report)
        for image in content.images:
            size = (int(image.get("width", 0)), int(image.get("height", 0)))
            sizes[photo_path(root, part, image)] = size if all(size) else None
    # Masks are drawn at the size that the JSON states, so another size is a problem.
    check_images(
        report, sizes, "coco-images", "the JSON", binding=True, decode=decode, workers=workers
    )
    report.notes.append(
        "papers mostly use the images that have an object: lists train-with-objects and "
        "val-with-objects"
    )
    return report


def _check_counts(part: str, path: Path, content: Instances, report: Report) -> None:
    ids = {image["id"] for image in content.images}
    # Instances of an image that the file does not list are a problem of their own.
    if unlisted := sorted(set(content.annotations) - ids):
        what = f"{path}: instances of {len(unlisted)} images that it does not list"
        report.add(what, [str(image) for image in unlisted], "coco-annotations")
    counts = len(content.images), len(ids & set(content.annotations))
    instances = sum(map(len, content.annotations.values()))
    report.facts.append(
        (
            part,
            f"{counts[0]} images, {counts[1]} with objects, {instances} instances, 80 categories",
        )
    )
    for count, expected, what in zip(
        counts, COUNTS[part], ("images", "images with objects"), strict=True
    ):
        if count != expected:
            report.add(f"{path}: {count} {what}, expected {expected}", source="coco-annotations")
