"""COCO 2014 as a data set: images and tags from the instances JSON.

The tags of an image are the categories of its instances, crowd regions included, or those of a CSV.

Lists are ``train`` and ``val`` (all images), ``train-with-objects`` and ``val-with-objects`` (those
that have an instance), or text files of file names.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from wsss.config.base import Split, Variant
from wsss.config.data import DataConfig
from wsss.data.datasets.candidates import Candidate, Dataset
from wsss.data.datasets.classes import class_list, customise
from wsss.data.datasets.coco import (
    CLASS_OF_CATEGORY,
    PARTS,
    WITH_OBJECTS,
    Instances,
    forget_instances,
    image_path,
    instances_path,
    load_instances,
    part_of,
)
from wsss.data.datasets.files import configured_lists, find_file, find_root, read_lines
from wsss.data.datasets.tag_table import TagTable
from wsss.data.datasets.tags import TagReader
from wsss.data.errors import DataError

_MAX_SHOWN = 80  # letters of a line in a message
_log = logging.getLogger(__name__)


def read_coco(data: DataConfig, variant: Variant) -> Dataset:
    """Read COCO 2014 in the order of its JSON, or of a text file of file names.

    Raises:
        DataError: a folder, JSON or table is missing, or a list has images that are in no JSON.
    """
    if data.tags == "xml":
        raise DataError("data.tags: xml is for kind voc; coco takes json or the path of a CSV")
    classes = customise(class_list("coco", variant), data.prompts, data.backgrounds)
    root = find_root(data.root, holds="annotations")
    candidates: list[Candidate] = []
    sources: list[Path] = []
    for split, name in configured_lists(data):
        if part := part_of(name):
            sources.append(instances_path(root, part))
            with_objects = name.endswith(WITH_OBJECTS)
            images = _part(root, part, split)
            candidates += [image for image in images if image.tags or not with_objects]
        else:
            path = find_file(name, root)
            parts = [p for p in PARTS if instances_path(root, p).is_file()]
            sources += [path, *(instances_path(root, p) for p in parts)]
            candidates += _listed(path, [image for p in parts for image in _part(root, p, split)])
    forget_instances()  # ingest decodes next and needs the memory
    if data.tags not in ("auto", "json"):
        table = TagTable(find_file(data.tags, root), TagReader(classes))
        candidates = [_tagged(image, table) for image in candidates]
        sources.append(table.path)
    return Dataset(classes, tuple(candidates), tuple(dict.fromkeys(sources)))


def _tagged(image: Candidate, table: TagTable) -> Candidate:
    """An image with the tags of a table instead of those of the JSON."""
    tags = table.find(image.id)
    return replace(image, tags=tags.indices, problem=image.problem or tags.problem)


def photo_path(root: Path, part: str, image: Mapping[str, Any]) -> Path:
    """The photo of an image of the JSON, whose name may have been written with another folder."""
    name, folder = image_path(image), root / f"{part}2014"
    path = folder / name
    return path if len(name.parts) == 1 or os.path.isfile(path) else folder / name.name


def _part(root: Path, part: str, split: Split) -> list[Candidate]:
    content = load_instances(instances_path(root, part))
    _check_strays(instances_path(root, part), content)
    candidates = []
    for image in content.images:
        name, path = image_path(image), photo_path(root, part, image)
        instances = content.annotations.get(image["id"], ())
        tags = dict.fromkeys(CLASS_OF_CATEGORY[instance["category_id"]] for instance in instances)
        problem = None
        if name.is_absolute() or ".." in name.parts:
            problem = f"file_name {str(name)[:80]!r} leads out of {part}2014; mend the JSON"
        candidates.append(Candidate(path.stem, split, path, tuple(tags), problem))
    return candidates


def _listed(path: Path, candidates: list[Candidate]) -> list[Candidate]:
    """The images of a list; further words of a line are class numbers, 0 … 79, as CLIP-ES has them.

    Tags come from the JSON. Where the numbers say something else, a warning counts the images.
    """
    by_id = {candidate.id: candidate for candidate in candidates}
    images, unknown, differing = [], [], []
    for line in read_lines(path):
        name, *numbers = line.split()
        if _image_id(name) not in by_id:
            name, numbers = line, []
        image = by_id.get(_image_id(name))
        if image is None:
            unknown.append(name)
            continue
        images.append(image)
        if numbers and set(numbers) != set(map(str, image.tags)):
            differing.append(line)
    if unknown:
        raise DataError(
            f"{path}: {len(unknown)} of its {len(images) + len(unknown)} images are in no "
            f"instances JSON, e.g. {unknown[0]!r}; expected file names such as "
            "COCO_train2014_000000000009.jpg"
        )
    if differing:
        _log.warning(
            "%s: what follows the name is not the class numbers (0 … 79) of the instances JSON in "
            "%d of %d lines, e.g. %r; the tags of the JSON are used",
            *(path, len(differing), len(images), differing[0][:_MAX_SHOWN]),
        )
    return images


def _image_id(name: str) -> str:
    """The id of an image that is written as a path, with or without extension."""
    return PurePosixPath(name.replace("\\", "/")).stem


def _check_strays(path: Path, content: Instances) -> None:
    """Count annotations of images that the file does not list, as some parts of COCO have them.

    Raises:
        DataError: these are all.
    """
    strays = content.annotations.keys() - {image["id"] for image in content.images}
    if not strays:
        return
    count = sum(len(content.annotations[image]) for image in strays)
    total = sum(map(len, content.annotations.values()))
    text = (
        f"{path}: {count} of {total} annotations belong to none of its {len(content.images)} "
        f"images, e.g. image_id {min(strays)}"
    )
    if count == total:
        raise DataError(f"{text}; compare image_id with the ids of the images")
    _log.warning("%s; they are not used", text)
