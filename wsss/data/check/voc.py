"""Check whether a folder of PASCAL VOC 2012 is complete; no mask is opened."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from wsss.data.check.downloads import Source
from wsss.data.check.image_headers import check_images, present
from wsss.data.check.report import Report
from wsss.data.datasets.candidates import Candidate
from wsss.data.datasets.classes import class_list
from wsss.data.datasets.files import IMAGES, PhotoIndex, find_root
from wsss.data.datasets.tag_table import TagTable
from wsss.data.datasets.voc import (
    AUGMENTED_MASKS,
    COUNTS,
    LISTS,
    Annotations,
    list_file,
    mask_folder,
    read_list,
    tag_source,
)
from wsss.data.errors import DataError

_log = logging.getLogger(__name__)
TEST = "test"
_DOWNLOADS: dict[str, Source] = {"trainaug": "sbd", TEST: "voc-test"}


def check_voc(
    root: str | Path,
    *,
    lists: Sequence[str] = ("train", "trainaug", "val"),
    tags: str = "xml",
    decode: bool = False,
    workers: int = 1,
) -> Report:
    """Check lists, images, tags and the presence of masks.

    The list ``test`` is checked as well if it exists: images only, as VOC publishes no more of it.

    Args:
        lists: names in ImageSets/Segmentation, or text files; known lists must be complete.
        tags: ``xml``, ``masks`` (then XML is not needed), or the path of a table.
        decode: decode every image in full, instead of reading headers.

    Raises:
        DataError: there is no such folder, or it does not have VOC's layout.
    """
    root = find_root(root, holds=IMAGES)
    report = Report(f"VOC 2012 in {root}")
    source = None if tags == "masks" else _tag_source(tags, root, report)
    index = PhotoIndex(root / IMAGES)
    names = list(dict.fromkeys(lists))
    if TEST not in names and (root / LISTS / f"{TEST}.txt").is_file():
        names.append(TEST)
    readable: list[_List] = []
    for name in names:
        try:
            path = list_file(name, root)
            _log.info("reading %s and the tags of its images", path)
            images = read_list(path, "train", index, None if name == TEST else source)
            readable.append(_List(name, path, images))
        except DataError as error:
            report.add(str(error), source=_DOWNLOADS.get(Path(name).stem, "voc"))
    for listed in readable:
        _check_list(listed, root, report)
    _check_overlaps(readable, report)
    sizes = source.sizes if isinstance(source, Annotations) else {}
    # All stages go by the size of the file, so a wrong size in an annotation does no harm.
    check_images(
        report,
        {image.path: sizes.get(image.id) for listed in readable for image in listed.images},
        "voc",
        "the annotation",
        binding=False,
        decode=decode,
        workers=workers,
    )
    _check_tags(readable, source, report)
    if TEST not in [listed.name for listed in readable]:
        report.notes.append("the list test is not here; only a submission to the server needs it")
    return report


@dataclass(frozen=True)
class _List:
    name: str
    path: Path
    images: list[Candidate]

    @property
    def stem(self) -> str:
        return Path(self.name).stem

    @property
    def ids(self) -> list[str]:
        return [image.id for image in self.images]


def _tag_source(tags: str, root: Path, report: Report) -> Annotations | TagTable | None:
    try:
        return tag_source(tags, root, class_list("voc"))
    except DataError as error:
        report.add(str(error), source="voc" if tags in ("auto", "xml") else None)
        return None


def _check_list(listed: _List, root: Path, report: Report) -> None:
    """Its length, its repetitions, and whether its masks exist."""
    count, expected = len(listed.images), COUNTS.get(listed.stem)
    if expected not in (None, count):
        what = f"{listed.path}: {count} images, expected {expected}"
        report.add(what, source=_DOWNLOADS.get(listed.stem, "voc"))
    repeated = [image for image, times in Counter(listed.ids).items() if times > 1]
    if repeated:
        report.add(f"{listed.path}: {len(repeated)} images are listed more than once", repeated)
    fact = f"{count} images"
    if listed.name != TEST:
        folder = mask_folder(listed.name)
        masks = {image: root / folder / f"{image}.png" for image in listed.ids}
        existing = present(masks.values())
        missing = [image for image, path in masks.items() if path not in existing]
        fact += f", {len(existing)} masks in {folder}"
        if missing:
            what = f"{folder}: {len(missing)} of {len(masks)} images of {listed.stem} have no mask"
            report.add(what, missing, "sbd" if folder == AUGMENTED_MASKS else "voc")
    report.facts.append((listed.stem, fact))


def _check_overlaps(lists: Sequence[_List], report: Report) -> None:
    """Training and held-out lists share nothing; trainaug contains train."""
    ids = {listed.stem: set(listed.ids) for listed in lists}
    for first, second in combinations(ids, 2):
        if {first, second} == {"train", "trainaug"}:
            if missing := sorted(ids["train"] - ids["trainaug"]):
                report.add(f"trainaug lacks {len(missing)} images of train", missing, "sbd")
        elif shared := sorted(ids[first] & ids[second]):
            report.add(f"{first} and {second} share {len(shared)} images, expected none", shared)


def _check_tags(
    lists: Sequence[_List], source: Annotations | TagTable | None, report: Report
) -> None:
    """Images that ingest would refuse because of their tags, or because they have none."""
    # Lists share images; of the list test VOC publishes nothing but images.
    images = {image.id: image for listed in lists if listed.name != TEST for image in listed.images}
    refused = [f"{image.id} ({image.problem})" for image in images.values() if image.problem]
    if refused:
        report.add(f"{len(refused)} listed images cannot be used", refused)
    if source is None:
        return
    existing = present(image.path for image in images.values())  # others are missing, not untagged
    untagged = [
        image.id
        for image in images.values()
        if not image.problem and not image.tags and image.path in existing
    ]
    if untagged:
        what = f"{source.path}: {len(untagged)} of {len(images)} images have no tag"
        report.add(what, untagged, "voc" if isinstance(source, Annotations) else None)
