"""Image-level tags read from VOC's masks, as some papers did: a table for ``data.tags: masks``.

Tags of a photograph name what a person sees on it, as VOC's annotations do. The masks nearly agree,
but contain what only pixel labels can: an object with a box may have no pixel (small, difficult, or
left out by the outlines of the Semantic Boundaries Dataset), and the other way round. So this table
is pixel supervision, if a weak one. It exists for comparison with papers that used it. It is
written here, because only this folder opens pixel labels; trainings read the table.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsss.artifacts.checksum import write_checked_text
from wsss.artifacts.progress import track
from wsss.config.base import Split
from wsss.config.data import DataConfig
from wsss.data.check.image_headers import present
from wsss.data.datasets.candidates import Candidate
from wsss.data.datasets.classes import ClassList, class_list
from wsss.data.datasets.files import IMAGES, PhotoIndex, find_root
from wsss.data.datasets.voc import (
    ANNOTATIONS,
    Annotations,
    list_file,
    mask_folder,
    read_list,
)
from wsss.data.errors import DataError, ImageError
from wsss.data.images.decode import in_processes
from wsss.data.images.label_png import read_label_png
from wsss.data.manifest import TAG_SEPARATOR
from wsss.score.metrics.confusion import IGNORE
from wsss.score.names import first_names
from wsss.score.truth.errors import TruthError

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
    only_xml: int
    """Of these: images with an object in the annotation that the mask does not show."""
    only_masks: int
    """Images with an object in the mask that the annotation does not name."""

    def __str__(self) -> str:
        text = f"{self.images} images in {self.table}, {self.untagged} without an object"
        if not self.compared:
            return f"{text}; no annotations to compare with"
        return (
            f"{text}; of {self.compared} with annotations {self.only_xml} have an object there that"
            f" the mask lacks, {self.only_masks} one in the mask that the annotation lacks"
        )


def write_mask_tags(data: DataConfig, out: Path, *, workers: int) -> TagsReport:
    """Write the tags of all images of both lists, as their masks show them.

    Args:
        data: of kind ``voc``.
        out: the table (CSV).
        workers: processes.

    Raises:
        DataError: another kind of data set, or a list is missing.
        TruthError: masks are missing or cannot be read; they are listed together.
    """
    if data.kind != "voc":
        raise DataError(
            f"data.kind: {data.kind}: tags are read from masks for voc only; coco has them "
            "in its instances JSON"
        )
    root = find_root(data.root, holds=IMAGES)
    classes = class_list("voc")
    listed = dict(_listed(data, root, classes))
    masks = {image: mask for image, (mask, _) in listed.items()}
    existing = present(masks.values())
    missing = [str(mask) for mask in masks.values() if mask not in existing]
    if missing:
        raise TruthError(f"{len(missing)} masks are missing: {first_names(missing, '; ')}")
    many = len(masks) >= _MASKS_WORTH_A_POOL
    read = in_processes(_labels, list(masks.values()), workers if many else 1)
    rows, wrong = {}, []
    for image, labels in zip(
        masks, track(read, total=len(masks), description="tags of masks"), strict=True
    ):
        if isinstance(labels, str):
            wrong.append(labels)
        elif labels and max(labels) > len(classes.names):
            wrong.append(f"{masks[image]}: holds label {max(labels)}, VOC has 0 … 20 and 255")
        else:
            rows[image] = tuple(label - 1 for label in labels)
    if wrong:
        raise TruthError(f"{len(wrong)} masks cannot be read as VOC's: {first_names(wrong, '; ')}")
    _write(out, rows, masks, classes)
    return _report(out, rows, {image: candidate for image, (_, candidate) in listed.items()})


def _listed(
    data: DataConfig, root: Path, classes: ClassList
) -> Iterator[tuple[str, tuple[Path, Candidate]]]:
    """Id → mask, and the candidate with the tags of the annotation, of both lists."""
    index = PhotoIndex(root / IMAGES)
    annotations = Annotations(root / ANNOTATIONS, classes)
    splits: tuple[tuple[Split, str], ...] = (
        ("train", data.train_list), ("val", data.val_list),
    )  # fmt: skip
    for split, name in splits:
        if not name:
            continue
        path = list_file(name, root)
        for sample in read_list(path, split, index, annotations):
            yield sample.id, (root / mask_folder(name) / f"{sample.id}.png", sample)


def _labels(path: Path) -> tuple[int, ...] | str:
    """The labels of the objects in a mask, ascending; a text if it cannot be read."""
    try:
        values = np.flatnonzero(np.bincount(read_label_png(path).ravel(), minlength=256))
    except ImageError as error:
        return str(error)
    return tuple(int(value) for value in values if value not in (0, IGNORE))


def _write(
    out: Path, rows: dict[str, tuple[int, ...]], masks: dict[str, Path], classes: ClassList
) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for image, tags in rows.items():
        names = TAG_SEPARATOR.join(classes.names[index] for index in tags)
        writer.writerow([image, names, f"pixel labels in {masks[image].parent.name}"])
    write_checked_text(out, buffer.getvalue())


def _report(
    out: Path, rows: dict[str, tuple[int, ...]], listed: dict[str, Candidate]
) -> TagsReport:
    pairs = [(set(listed[image].tags), set(tags)) for image, tags in rows.items()]
    compared = [(xml, mask) for xml, mask in pairs if xml]
    return TagsReport(
        table=out,
        images=len(rows),
        untagged=sum(not mask for _, mask in pairs),
        compared=len(compared),
        only_xml=sum(bool(xml - mask) for xml, mask in compared),
        only_masks=sum(bool(mask - xml) for xml, mask in compared),
    )
