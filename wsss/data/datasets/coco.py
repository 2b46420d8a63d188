"""COCO 2014: images and tags from the instances JSON.

::

    train2014/*.jpg, val2014/*.jpg
    annotations/instances_{train,val}2014.json

The tags of an image are the categories of its instances, crowd regions included. Class k is the
k-th category by ascending id; the ids have gaps (80 classes, ids 1 … 90).

Lists are ``train`` and ``val`` (all images), ``train-with-objects`` and ``val-with-objects`` (those
that have a tag), or text files of file names.
"""

from __future__ import annotations

import errno
import functools
import json
import stat
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from wsss.config.base import Split, Variant
from wsss.config.data import DataConfig
from wsss.data.datasets.candidates import Candidate, Dataset
from wsss.data.datasets.classes import class_list, customise
from wsss.data.datasets.files import configured_lists, find_file, find_root, read_lines
from wsss.data.datasets.words import COCO_NAMES
from wsss.data.errors import DataError

PARTS: Final = ("train", "val")
WITH_OBJECTS: Final = "-with-objects"
UNUSED_CATEGORIES: Final[Mapping[int, str]] = {
    12: "street sign", 26: "hat", 29: "shoe", 30: "eye glasses", 45: "plate",
    66: "mirror", 68: "window", 69: "desk", 71: "door", 83: "blender",
}  # fmt: skip
"""Category ids that COCO named and never annotated."""
CATEGORY_IDS: Final = tuple(id for id in range(1, 91) if id not in UNUSED_CATEGORIES)
"""Category id of each class, in label order."""
CLASS_OF_CATEGORY: Final[Mapping[int, int]] = {id: index for index, id in enumerate(CATEGORY_IDS)}
"""Category id → 0-based class."""
_MAX_BYTES = 4 * 2**30


@dataclass(frozen=True)
class Instances:
    """An instances JSON, by image."""

    images: tuple[Mapping[str, Any], ...]
    """As in the file: ``id``, ``file_name``, ``width``, ``height`` …"""
    annotations: Mapping[int, tuple[Mapping[str, Any], ...]]
    """Image id → its instances, in the order of the file."""


def load_instances(path: Path, *, shapes: bool = False) -> Instances:
    """Read an instances JSON; the last two stay in memory.

    Args:
        path: the JSON file.
        shapes: keep ``segmentation`` (most of the file); otherwise parsing drops it.

    Raises:
        DataError: the file is missing, is no instances JSON, or has other categories than COCO.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
            raise OSError(errno.EINVAL, f"is no file of at most {_MAX_BYTES} bytes")
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); expected COCO's instances JSON"
        ) from None
    return _load(path, shapes, status.st_mtime_ns)


def read_coco(data: DataConfig, variant: Variant) -> Dataset:
    """Read COCO 2014 in the order of its JSON, or of a text file of file names.

    Raises:
        DataError: a folder or JSON is missing, or a list has images that are in no JSON.
    """
    if data.tags not in ("auto", "json"):
        raise DataError(
            f"data.tags: {data.tags!r}: kind coco takes its tags from the instances JSON (auto or "
            "json); use kind folder for a CSV"
        )
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
    _load.cache_clear()  # ingest decodes next and needs the memory
    return Dataset(classes, tuple(candidates), tuple(dict.fromkeys(sources)))


def part_of(name: str) -> str | None:
    """The part, ``train`` or ``val``, that a list's name stands for; None if the list is a file."""
    part = name.removesuffix(WITH_OBJECTS).removesuffix("2014")
    return part if part in PARTS else None


def parts_of(data: DataConfig) -> tuple[str, ...]:
    """The parts that a configuration reads: those of its lists, both if a list is a file."""
    parts = [part_of(name) for _, name in configured_lists(data)]
    return PARTS if None in parts else tuple(part for part in PARTS if part in parts)


def instances_path(root: Path, part: str) -> Path:
    """The instances JSON of a part."""
    return root / "annotations" / f"instances_{part}2014.json"


def _part(root: Path, part: str, split: Split) -> list[Candidate]:
    content = load_instances(instances_path(root, part))
    candidates = []
    for image in content.images:
        name = PurePosixPath(image["file_name"])
        instances = content.annotations.get(image["id"], ())
        tags = dict.fromkeys(CLASS_OF_CATEGORY[instance["category_id"]] for instance in instances)
        problem = None
        if name.is_absolute() or ".." in name.parts:
            problem = f"file_name {str(name)[:80]!r} leads out of {part}2014; mend the JSON"
        path = root / f"{part}2014" / name
        candidates.append(Candidate(path.stem, split, path, tuple(tags), problem))
    return candidates


def _listed(path: Path, candidates: list[Candidate]) -> list[Candidate]:
    by_id = {candidate.id: candidate for candidate in candidates}
    stems = [Path(line).stem for line in read_lines(path)]
    unknown = [stem for stem in stems if stem not in by_id]
    if unknown:
        raise DataError(
            f"{path}: {len(unknown)} of its {len(stems)} images are in no instances JSON, e.g. "
            f"{unknown[0]!r}; expected file names such as COCO_train2014_000000000009.jpg"
        )
    return [by_id[stem] for stem in stems]


@functools.lru_cache(maxsize=2)
def _load(path: Path, shapes: bool, _modified_ns: int) -> Instances:
    try:
        with path.open(encoding="utf-8") as stream:
            content = json.load(stream, object_hook=None if shapes else _without_shape)
        categories = sorted(content["categories"], key=lambda category: category["id"])
        ids = tuple(category["id"] for category in categories)
        names = tuple(category["name"] for category in categories)
        images = tuple(content["images"])
        for index, image in enumerate(images):
            if not isinstance(image["id"], int) or not isinstance(image["file_name"], str):
                raise TypeError(f"image {index} has no whole number as id and text as file_name")
        by_image: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
        for index, instance in enumerate(content["annotations"]):
            if instance["category_id"] not in CLASS_OF_CATEGORY:
                raise ValueError(f"annotation {index} is of category {instance['category_id']!r}")
            by_image[instance["image_id"]].append(instance)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        shown = f"{type(error).__name__}: {str(error)[:200]}"
        raise DataError(f"{path}: is no instances JSON ({shown}); fetch it again") from None
    if ids != CATEGORY_IDS or names != COCO_NAMES:
        other = next((n for n in names if n not in COCO_NAMES), f"{len(names)} categories")
        raise DataError(f"{path}: expected COCO's 80 categories, found {other!r}")
    return Instances(images, {image: tuple(instances) for image, instances in by_image.items()})


def _without_shape(mapping: dict[str, Any]) -> dict[str, Any]:
    mapping.pop("segmentation", None)
    return mapping
