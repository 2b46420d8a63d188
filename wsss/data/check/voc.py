"""Is a folder of PASCAL VOC 2012 complete? No image is decoded, no mask is opened."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from wsss.data.check.downloads import Source
from wsss.data.check.image_headers import Size, check_images, present
from wsss.data.check.report import Report
from wsss.data.datasets.candidates import Candidate
from wsss.data.datasets.classes import class_list
from wsss.data.datasets.files import PhotoIndex, find_file, find_root
from wsss.data.datasets.tag_table import TagTable
from wsss.data.datasets.tags import TagReader, Tags
from wsss.data.datasets.voc import (
    ANNOTATIONS,
    AUGMENTED_MASKS,
    IMAGES,
    LISTS,
    annotated_size,
    list_file,
    mask_folder,
    object_names,
    read_annotation,
    read_list,
)
from wsss.data.errors import DataError

_log = logging.getLogger(__name__)
COUNTS = {"train": 1464, "trainaug": 10_582, "val": 1449, "test": 1456}
"""Images on each list of VOC 2012 segmentation; trainaug is the one that papers pass on."""
LISTS_OF_PAPERS = ("train", "trainaug", "val")
TEST = "test"
_XML = ("auto", "xml")
_FROM: dict[str, Source] = {"trainaug": "sbd", TEST: "voc-test"}


def check_voc(
    root: Path,
    *,
    lists: Sequence[str] = LISTS_OF_PAPERS,
    tags: str = "xml",
    decode: bool = False,
    workers: int = 1,
) -> Report:
    """Check lists, images, tags and the presence of masks.

    The list ``test`` is checked as well where it lies beside the others: images only, as VOC
    publishes no more of it.

    Args:
        root: the data set's folder.
        lists: names in ImageSets/Segmentation, or text files; their counts are checked if known.
        tags: ``xml``, ``masks`` (then XML is not needed), or the path of a table.
        decode: decode every image in full.
        workers: processes for that, or for reading headers.

    Raises:
        DataError: there is no such folder, or it is none of VOC's layout.
    """
    root = find_root(str(root), holds=IMAGES)
    report = Report(f"VOC 2012 in {root}")
    index = PhotoIndex(root / IMAGES)
    annotations = _Annotations(root / ANNOTATIONS)
    tags_of = _tag_source(tags, root, annotations, report)
    wanted = list(dict.fromkeys(lists))
    if TEST not in wanted and (root / LISTS / f"{TEST}.txt").is_file():
        wanted.append(TEST)
    found: dict[str, _Listed] = {}
    for name in wanted:
        listed = _read(name, root, index, tags_of if name != TEST else _no_tags, report)
        if listed is not None:
            found[name] = listed
    for listed in found.values():
        _check_list(listed, root, report)
    _check_overlaps(found, report)
    sizes: dict[Path, Size | None] = {}
    for listed in found.values():
        for one in listed.candidates:
            sizes[one.path] = annotations.sizes.get(one.id)
    if sizes:
        # Everything here goes by the size of the file; a slip in an annotation does no harm.
        check_images(
            report,
            sizes,
            decode=decode,
            workers=workers,
            source="voc",
            said_by="the annotation",
            binding=False,
        )
    _check_tags(found.values(), tags, root, report)
    if TEST not in found:
        report.notes.append("the list test is not here; only a submission to the server needs it")
    return report


@dataclass(frozen=True)
class _Listed:
    name: str
    path: Path
    candidates: tuple[Candidate, ...]

    @property
    def stem(self) -> str:
        return Path(self.name).stem

    @property
    def source(self) -> Source:
        return _FROM.get(self.stem, "voc")

    @property
    def ids(self) -> list[str]:
        return [one.id for one in self.candidates]


class _Annotations:
    """Annotations by image, each parsed once: a list may hold another."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reader = TagReader(class_list("voc"))
        self._tags: dict[str, Tags] = {}
        self.sizes: dict[str, Size | None] = {}

    def tags(self, image: str) -> Tags:
        """As ingest reads them."""
        if image not in self._tags:
            self._tags[image] = self._parse(image)
        return self._tags[image]

    def _parse(self, image: str) -> Tags:
        try:
            annotation = read_annotation(self._folder / f"{image}.xml")
        except DataError as error:
            return Tags((), str(error))
        if annotation is None:
            return Tags()
        self.sizes[image] = annotated_size(annotation)
        return self._reader.names(object_names(annotation))


def _no_tags(image: str) -> Tags:
    return Tags()


def _tag_source(
    tags: str, root: Path, annotations: _Annotations, report: Report
) -> Callable[[str], Tags]:
    if tags in _XML:
        if not (root / ANNOTATIONS).is_dir():
            report.add(f"{ANNOTATIONS}: no such folder, so there are no tags", source="voc")
        return annotations.tags
    if tags == "masks":
        return _no_tags
    try:
        return TagTable(find_file(tags, root), TagReader(class_list("voc"))).find
    except DataError as error:
        report.add(str(error))
        return _no_tags


def _read(
    name: str, root: Path, index: PhotoIndex, tags_of: Callable[[str], Tags], report: Report
) -> _Listed | None:
    try:
        path = list_file(name, root)
        _log.info("reading %s and the tags of its images", path)
        candidates = read_list(path, "train", index, root, tags_of)
    except DataError as error:
        report.add(str(error), source=_FROM.get(Path(name).stem, "voc"))
        return None
    return _Listed(name, path, tuple(candidates))


def _check_list(listed: _Listed, root: Path, report: Report) -> None:
    """Its length, its repetitions, and whether its masks are there."""
    count, expected = len(listed.candidates), COUNTS.get(listed.stem)
    if expected not in (None, count):
        what = f"{listed.path}: {count} images, expected {expected}"
        report.add(what, source=listed.source)
    again = [image for image, times in Counter(listed.ids).items() if times > 1]
    if again:
        report.add(f"{listed.path}: {len(again)} images are listed more than once", again)
    fact = f"{count} images"
    if listed.name != TEST:
        folder = mask_folder(listed.name)
        masks = {image: root / folder / f"{image}.png" for image in listed.ids}
        there = present(masks.values())
        missing = [image for image, path in masks.items() if path not in there]
        fact += f", {len(masks) - len(missing)} masks in {folder}"
        if missing:
            what = f"{folder}: {len(missing)} of {len(masks)} images of {listed.stem} have no mask"
            source: Source = "sbd" if folder == AUGMENTED_MASKS else "voc"
            report.add(what, missing, source)
    report.facts.append((listed.stem, fact))


def _check_overlaps(found: dict[str, _Listed], report: Report) -> None:
    """Training and held-out lists share nothing; trainaug holds train."""
    ids = {listed.stem: set(listed.ids) for listed in found.values()}
    for one, other in combinations(ids, 2):
        if {one, other} == {"train", "trainaug"}:
            left = sorted(ids["train"] - ids["trainaug"])
            if left:
                report.add(f"trainaug lacks {len(left)} images of train", left, "sbd")
        elif shared := sorted(ids[one] & ids[other]):
            report.add(f"{one} and {other} share {len(shared)} images, expected none", shared)


def _check_tags(found: Iterable[_Listed], tags: str, root: Path, report: Report) -> None:
    """Images that ingest would refuse for their tags, or for want of them."""
    # A list may hold another; of test nothing but images is published.
    unique = {one.id: one for listed in found if listed.name != TEST for one in listed.candidates}
    refused = [f"{one.id} ({one.problem})" for one in unique.values() if one.problem]
    if refused:
        report.add(f"{len(refused)} listed images cannot be used", refused)
    there = present(one.path for one in unique.values())  # no tags are read for a missing image
    untagged = [
        one.id for one in unique.values() if not one.problem and not one.tags and one.path in there
    ]
    place = ANNOTATIONS if tags in _XML else tags
    if untagged and tags != "masks" and (place != ANNOTATIONS or (root / place).is_dir()):
        what = f"{place}: {len(untagged)} of {len(unique)} images have no tag"
        report.add(what, untagged, "voc" if place == ANNOTATIONS else None)
