"""Image-level tags read from label maps, as some papers did: a table for ``data.tags: masks``.

Tags of a photograph name what a person sees on it, as VOC's annotations do. The masks nearly agree,
but contain what only pixel labels can: an object with a box may have no pixel (small, difficult, or
left out by the outlines of the Semantic Boundaries Dataset), and the other way round. In COCO's
label maps an object may be covered by others, or lie in a crowd region that is void; they follow
``data.coco_truth``. So this table is pixel supervision, if a weak one. It exists for comparison
with papers that used it. It is written here, because only this folder opens pixel labels; trainings
read the table.
"""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsss.artifacts.checksum import write_checked_text
from wsss.artifacts.progress import track
from wsss.config.data import DataConfig
from wsss.data.check.image_headers import present
from wsss.data.counted import first_names
from wsss.data.datasets.candidates import Candidate
from wsss.data.datasets.classes import ClassList, class_list
from wsss.data.datasets.files import IMAGES, PhotoIndex, configured_lists, find_root
from wsss.data.datasets.registry import read_dataset
from wsss.data.datasets.voc import (
    ANNOTATIONS,
    Annotations,
    list_file,
    mask_folder,
    read_list,
)
from wsss.data.errors import DataError, ImageError
from wsss.data.images.decode import in_processes
from wsss.data.manifest import TAG_SEPARATOR
from wsss.labels.ignore import IGNORED
from wsss.score.truth.errors import TruthError
from wsss.score.truth.find import find_coco
from wsss.score.truth.sources import PngTruth, Source

_COLUMNS = ("image", "tags", "source")
_MASKS_WORTH_A_POOL = 1000


@dataclass(frozen=True)
class TagsReport:
    """What a table of tags holds, and how it differs from the annotations."""

    table: Path
    images: int
    untagged: int
    """Images whose mask shows no object."""
    compared: int
    """Images that have an annotation with tags."""
    only_annotated: int
    """Of these: images with an object in the annotation that the mask does not show."""
    only_masks: int
    """Images with an object in the mask that the annotation does not name."""

    def __str__(self) -> str:
        text = f"{self.images} images in {self.table}, {self.untagged} without an object"
        if not self.compared:
            return f"{text}; no annotations to compare with"
        return (
            f"{text}; of {self.compared} with annotations {self.only_annotated} have an object "
            f"there that the mask lacks, {self.only_masks} one in the mask that the annotation "
            "lacks"
        )


def write_mask_tags(data: DataConfig, out: Path, *, workers: int) -> TagsReport:
    """Write the tags of all images of both lists, as their label maps show them.

    Args:
        data: of kind ``voc`` or ``coco``.
        out: the table (CSV).

    Raises:
        DataError: another kind of data set, or a list is missing.
        TruthError: masks are missing or cannot be read; they are listed together.
    """
    if data.kind not in ("voc", "coco"):
        raise DataError(f"data.kind: {data.kind}: tags are read from masks for voc and coco only")
    classes = class_list(data.kind)
    listed = _of_coco(data) if data.kind == "coco" else _of_voc(data, classes)
    many = len(listed.sources) >= _MASKS_WORTH_A_POOL
    labels_of = functools.partial(_labels, highest=len(classes.names))
    read = in_processes(labels_of, list(listed.sources.values()), workers if many else 1)
    rows, wrong = {}, []
    for image, labels in zip(
        listed.sources, track(read, total=len(listed.sources), description="tags of masks"),
        strict=True,
    ):  # fmt: skip
        if isinstance(labels, str):
            wrong.append(labels)
        else:
            rows[image] = tuple(label - 1 for label in labels)
    if wrong:
        raise TruthError(f"{len(wrong)} masks cannot be read: {first_names(wrong, separator='; ')}")
    _write(out, rows, listed, classes)
    return _report(out, rows, listed.candidates)


@dataclass(frozen=True)
class _Listed:
    """The images of both lists."""

    candidates: Mapping[str, Candidate]
    """With the tags of the annotations."""
    sources: Mapping[str, Source]
    """Their label maps."""
    origins: Mapping[str, str]
    """What these are, for the table."""


def _of_voc(data: DataConfig, classes: ClassList) -> _Listed:
    root = find_root(data.root, holds=IMAGES)
    index = PhotoIndex(root / IMAGES)
    annotations = Annotations(root / ANNOTATIONS, classes)
    candidates: dict[str, Candidate] = {}
    sources: dict[str, PngTruth] = {}
    origins: dict[str, str] = {}
    for split, name in configured_lists(data):
        for image in read_list(list_file(name, root), split, index, annotations):
            candidates[image.id] = image
            sources[image.id] = PngTruth(root / mask_folder(name), f"{image.id}.png")
            origins[image.id] = f"pixel labels in {mask_folder(name)}"
    existing = present(source.path for source in sources.values())
    missing = [str(s.path) for s in sources.values() if s.path not in existing]
    if missing:
        names = first_names(missing, separator="; ")
        raise TruthError(f"{len(missing)} masks are missing: {names}")
    return _Listed(candidates, sources, origins)


def _of_coco(data: DataConfig) -> _Listed:
    dataset = read_dataset(data.model_copy(update={"tags": "auto"}))
    candidates = {image.id: image for image in dataset.candidates}
    truth = find_coco(data, candidates.values())
    origins = dict.fromkeys(candidates, f"pixel labels, {truth.rule}")
    return _Listed(candidates, truth.sources, origins)


def _labels(source: Source, highest: int) -> tuple[int, ...] | str:
    """The labels of the objects in a label map, ascending; a text if they are none."""
    try:
        values = np.flatnonzero(np.bincount(source.read().ravel(), minlength=256))
    except (ImageError, TruthError) as error:
        return str(error)
    labels = tuple(int(value) for value in values if value not in (0, IGNORED))
    if isinstance(source, PngTruth) and max(labels, default=0) > highest:
        return f"{source.path}: holds label {max(labels)}, expected 0 … {highest} and {IGNORED}"
    return labels


def _write(
    out: Path, rows: dict[str, tuple[int, ...]], listed: _Listed, classes: ClassList
) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for image, tags in rows.items():
        names = TAG_SEPARATOR.join(classes.names[index] for index in tags)
        writer.writerow([image, names, listed.origins[image]])
    write_checked_text(out, buffer.getvalue())


def _report(
    out: Path, rows: dict[str, tuple[int, ...]], candidates: Mapping[str, Candidate]
) -> TagsReport:
    pairs = [(set(candidates[image].tags), set(tags)) for image, tags in rows.items()]
    compared = [(annotated, mask) for annotated, mask in pairs if annotated]
    return TagsReport(
        table=out,
        images=len(rows),
        untagged=sum(not mask for _, mask in pairs),
        compared=len(compared),
        only_annotated=sum(bool(annotated - mask) for annotated, mask in compared),
        only_masks=sum(bool(mask - annotated) for annotated, mask in compared),
    )
