"""COCO 2014: images and tags from the instances JSON.

::

    train2014/*.jpg, val2014/*.jpg
    annotations/instances_{train,val}2014.json

The tags of an image are the categories among its instances, crowd regions included. Class k is the
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

from wsss.config.base import Variant
from wsss.config.cams import Split
from wsss.config.data import DataConfig
from wsss.data.datasets.candidates import Candidate, Dataset
from wsss.data.datasets.classes import class_list, customise
from wsss.data.datasets.files import find_file, find_root, read_lines
from wsss.data.datasets.words import COCO_NAMES
from wsss.data.errors import DataError

PARTS: Final = ("train", "val")
WITH_OBJECTS: Final = "-with-objects"
UNUSED_CATEGORIES: Final[Mapping[int, str]] = {
    12: "street sign", 26: "hat", 29: "shoe", 30: "eye glasses", 45: "plate",
    66: "mirror", 68: "window", 69: "desk", 71: "door", 83: "blender",
}  # fmt: skip
"""Category ids that COCO named and never annotated."""
CATEGORY_IDS: Final = tuple(number for number in range(1, 91) if number not in UNUSED_CATEGORIES)
"""Category id of each class, in label order."""
CLASS_OF_CATEGORY: Final[Mapping[int, int]] = {
    category: index for index, category in enumerate(CATEGORY_IDS)
}
"""Category id → 0-based class."""


_MOST_BYTES = 4 * 2**30


@dataclass(frozen=True)
class Instances:
    """An instances JSON, by image."""

    images: tuple[Mapping[str, Any], ...]
    """As in the file: ``id``, ``file_name``, ``width``, ``height`` …"""
    annotations: Mapping[int, tuple[Mapping[str, Any], ...]]
    """Image id → its instances, in the order of the file."""


def load_instances(path: Path, *, shapes: bool = False) -> Instances:
    """Read an instances JSON; the last ones read are kept in memory.

    Args:
        path: of the JSON.
        shapes: keep ``segmentation`` (the bulk of the file); without, it is dropped while parsing.

    Raises:
        DataError: missing, no instances JSON, or of other categories than COCO's.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > _MOST_BYTES:
            raise OSError(errno.EINVAL, f"is no file of at most {_MOST_BYTES} bytes")
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); expected COCO's instances JSON"
        ) from None
    return _load(path, shapes, found.st_mtime_ns)


def read_coco(data: DataConfig, variant: Variant) -> Dataset:
    """Read COCO 2014 in the order of its JSON, or of a text file of file names.

    Raises:
        DataError: a folder or JSON is missing, or a list names images that no JSON has.
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
    splits: tuple[tuple[Split, str], ...] = (("train", data.train_list), ("val", data.val_list))
    for split, name in splits:
        if not name:
            continue
        part = part_of(name)
        if part:
            sources.append(instances_path(root, part))
            found = _part(root, part, split)
            with_objects = name.endswith(WITH_OBJECTS)
            candidates += [one for one in found if one.tags or not with_objects]
        else:
            path = find_file(name, root)
            parts = [p for p in PARTS if instances_path(root, p).is_file()]
            sources += [path, *(instances_path(root, p) for p in parts)]
            candidates += _listed(path, [c for p in parts for c in _part(root, p, split)])
    _load.cache_clear()  # ingest decodes next and needs the memory
    return Dataset(classes, tuple(candidates), tuple(dict.fromkeys(sources)))


def part_of(name: str) -> str | None:
    """The part that the name of a list stands for; None if the list is a file."""
    part = name.removesuffix(WITH_OBJECTS).removesuffix("2014")
    return part if part in PARTS else None


def parts_of(data: DataConfig) -> tuple[str, ...]:
    """The parts that a configuration may read: those of its lists, both where one is a file."""
    named = [part_of(name) for name in (data.train_list, data.val_list) if name]
    return PARTS if None in named else tuple(part for part in PARTS if part in named)


def instances_path(root: Path, part: str) -> Path:
    """The instances JSON of a part."""
    return root / "annotations" / f"instances_{part}2014.json"


def _part(root: Path, part: str, split: Split) -> list[Candidate]:
    content = load_instances(instances_path(root, part))
    found = []
    for image in content.images:
        name = str(image["file_name"])
        path = root / f"{part}2014" / name
        instances = content.annotations.get(image["id"], ())
        tags = dict.fromkeys(CLASS_OF_CATEGORY[one["category_id"]] for one in instances)
        outside = PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts
        problem = f"file_name {name[:80]!r} leads out of {part}2014; mend the JSON"
        found.append(
            Candidate(Path(path.name).stem, split, path, tuple(tags), problem if outside else None)
        )
    return found


def _listed(path: Path, known: list[Candidate]) -> list[Candidate]:
    by_id = {candidate.id: candidate for candidate in known}
    stems = [Path(line).stem for line in read_lines(path)]
    unknown = [stem for stem in stems if stem not in by_id]
    if unknown:
        raise DataError(
            f"{path}: {len(unknown)} of its {len(stems)} images are in no instances JSON, e.g. "
            f"{unknown[0]!r}; expected file names such as COCO_train2014_000000000009.jpg"
        )
    return [by_id[stem] for stem in stems]


@functools.lru_cache(maxsize=2)
def _load(path: Path, shapes: bool, _changed: int) -> Instances:
    try:
        with path.open(encoding="utf-8") as stream:
            content = json.load(stream, object_hook=None if shapes else _without_shape)
        names = [c["name"] for c in sorted(content["categories"], key=lambda c: c["id"])]
        ids = tuple(sorted(category["id"] for category in content["categories"]))
        images, instances = tuple(content["images"]), content["annotations"]
        for number, image in enumerate(images):
            if not isinstance(image["id"], int) or not isinstance(image["file_name"], str):
                raise TypeError(f"image {number} has no whole number as id and text as file_name")
        by_image: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
        for number, instance in enumerate(instances):
            if instance["category_id"] not in CLASS_OF_CATEGORY:
                raise ValueError(f"annotation {number} is of category {instance['category_id']!r}")
            by_image[instance["image_id"]].append(instance)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        shown = f"{type(error).__name__}: {str(error)[:200]}"
        raise DataError(f"{path}: is no instances JSON ({shown}); fetch it again") from None
    if ids != CATEGORY_IDS or tuple(names) != COCO_NAMES:
        other = next((n for n in names if n not in COCO_NAMES), f"{len(names)} categories")
        raise DataError(f"{path}: expected COCO's 80 categories, found {other!r}")
    return Instances(images, {image: tuple(found) for image, found in by_image.items()})


def _without_shape(mapping: dict[str, Any]) -> dict[str, Any]:
    mapping.pop("segmentation", None)
    return mapping
