"""Is a folder of COCO 2014 complete? No image is decoded, no shape is read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from wsss.data.check.image_headers import Size, check_images
from wsss.data.check.report import Report
from wsss.data.datasets.coco import Instances, instances_path, load_instances
from wsss.data.datasets.files import find_root
from wsss.data.errors import DataError

_log = logging.getLogger(__name__)
COUNTS = {"train": (82_783, 82_081), "val": (40_504, 40_137)}
"""Images of each part: all, and those with at least one object, the lists of most papers."""


def check_coco(
    root: Path,
    *,
    parts: Sequence[str] = ("train", "val"),
    decode: bool = False,
    workers: int = 1,
) -> Report:
    """Check the instances JSON files, their categories and counts, and the images.

    Args:
        root: the data set's folder.
        parts: ``train``, ``val``.
        decode: decode every image in full.
        workers: processes for that, or for reading headers.

    Raises:
        DataError: there is no such folder.
    """
    root = find_root(str(root), holds="")
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
        folder = root / f"{part}2014"
        for image in content.images:
            size = (int(image.get("width", 0)), int(image.get("height", 0)))
            sizes[folder / str(image["file_name"])] = size if all(size) else None
    if sizes:
        check_images(
            report,
            sizes,
            decode=decode,
            workers=workers,
            source="coco-images",
            said_by="the JSON",
            binding=True,  # masks are drawn at the size that the JSON says
        )
    report.notes.append(
        "papers mostly use the images that have an object: lists train-with-objects and "
        "val-with-objects"
    )
    return report


def _check_counts(part: str, path: Path, content: Instances, report: Report) -> None:
    known = {image["id"] for image in content.images}
    # An instance may be of an image that the file does not list; that is a problem of its own.
    lost = sorted(set(content.annotations) - known)
    if lost:
        names = [str(image) for image in lost]
        what = f"{path}: instances of {len(lost)} images that it does not list"
        report.add(what, names, "coco-annotations")
    found = (len(content.images), len(known) - len(known - set(content.annotations)))
    instances = sum(len(of_image) for of_image in content.annotations.values())
    report.facts.append(
        (part, f"{found[0]} images, {found[1]} with objects, {instances} instances, 80 categories")
    )
    for count, expected, what in zip(
        found, COUNTS[part], ("images", "images with objects"), strict=True
    ):
        if count != expected:
            report.add(f"{path}: {count} {what}, expected {expected}", source="coco-annotations")
