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
import logging
import stat
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from wsss.config.base import Split, Variant
from wsss.config.data import DataConfig
from wsss.data.datasets.candidates import Candidate, Dataset
from wsss.data.datasets.classes import class_list, customise, spelling
from wsss.data.datasets.files import (
    configured_lists,
    find_file,
    find_root,
    is_file,
    read_lines,
)
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
_KEYS = ("images", "annotations", "categories")
_MAX_BYTES = 4 * 2**30
_MAX_SHOWN = 80  # letters of a value in a message
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Instances:
    """An instances JSON, by image."""

    images: tuple[Mapping[str, Any], ...]
    """As in the file: ``id``, ``file_name``, ``width``, ``height`` (both may be missing) …"""
    annotations: Mapping[int, tuple[Mapping[str, Any], ...]]
    """Image id → its instances, in the order of the file; each has an ``id``."""


def load_instances(path: Path, *, shapes: bool = False) -> Instances:
    """Read an instances JSON; the last two stay in memory.

    Whole numbers may be written as text or with a decimal point, annotations may lack an id.

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


def image_name(image: Mapping[str, Any]) -> str:
    """The file name of an image without folders, which some files write in front of it."""
    return _posix(image).name


def _posix(image: Mapping[str, Any]) -> PurePosixPath:
    return PurePosixPath(image["file_name"].replace("\\", "/"))


def _part(root: Path, part: str, split: Split) -> list[Candidate]:
    content = load_instances(instances_path(root, part))
    _check_strays(instances_path(root, part), content)
    candidates = []
    for image in content.images:
        name = _posix(image)
        instances = content.annotations.get(image["id"], ())
        tags = dict.fromkeys(CLASS_OF_CATEGORY[instance["category_id"]] for instance in instances)
        problem = None
        if name.is_absolute() or ".." in name.parts:
            problem = f"file_name {str(name)[:80]!r} leads out of {part}2014; mend the JSON"
        path = root / f"{part}2014" / name
        if len(name.parts) > 1 and not is_file(path):  # perhaps written with another folder
            path = root / f"{part}2014" / name.name
        candidates.append(Candidate(path.stem, split, path, tuple(tags), problem))
    return candidates


def _listed(path: Path, candidates: list[Candidate]) -> list[Candidate]:
    """The images of a list; further words of a line are class numbers, 0 … 79, as CLIP-ES has them.

    Tags come from the JSON. Where the numbers say something else, a warning counts the images.
    """
    by_id = {candidate.id: candidate for candidate in candidates}
    images, unknown, differing = [], [], []
    for line in read_lines(path):
        name, *numbers = [line] if _image_id(line) in by_id else line.split()
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


@functools.lru_cache(maxsize=2)
def _load(path: Path, shapes: bool, _modified_ns: int) -> Instances:
    try:
        with path.open(encoding="utf-8-sig") as stream:
            content = json.load(stream, object_hook=None if shapes else _without_shape)
        if not isinstance(content, dict):
            raise ValueError("expected an object with images, annotations and categories")
        if lacking := [key for key in _KEYS if not isinstance(content.get(key), list)]:
            raise ValueError(f"has no list {lacking[0]!r}")
        _check_categories(content["categories"])
        images = _images(content["images"])
        by_image = _by_image(content["annotations"])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        shown = f"{kind}{str(error)[:200]}"
        raise DataError(
            f"{path}: is no instances JSON ({shown}); mend it, or fetch it again"
        ) from None
    return Instances(images, {image: tuple(instances) for image, instances in by_image.items()})


def _by_image(annotations: list[dict[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
    """Image id → its instances; those without an id are numbered as they stand in the file."""
    by_image: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for index, instance in enumerate(annotations):
        _normalise(instance, f"annotation {index}", ("image_id", "category_id"), ("id", "iscrowd"))
        if instance["category_id"] not in CLASS_OF_CATEGORY:
            raise ValueError(f"annotation {index} is of category {instance['category_id']!r}")
        instance.setdefault("id", index)
        by_image[instance["image_id"]].append(instance)
    return by_image


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


def _check_categories(categories: list[dict[str, Any]]) -> None:
    """Refuse other categories than COCO's; their order does not matter."""
    for index, category in enumerate(categories):
        _normalise(category, f"category {index}", ("id",))
    names = {category["id"]: str(category["name"]) for category in categories}
    expected = dict(zip(CATEGORY_IDS, COCO_NAMES, strict=True))
    for number, name in names.items():
        if spelling(name) != spelling(expected.get(number, "")):
            raise ValueError(f"expected COCO's 80 categories, but category {number} is {name!r}")
    if len(names) != len(expected):
        raise ValueError(f"expected COCO's 80 categories, but it has {len(names)}")


def _images(entries: list[dict[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """The images, each once, with numbers as numbers.

    Raises:
        ValueError: an image lacks something, or two have one id or one name.
    """
    images: dict[int, Mapping[str, Any]] = {}
    ids: dict[str, int] = {}
    for index, image in enumerate(entries):
        _normalise(image, f"image {index}", ("id",), ("width", "height"))
        name = image.get("file_name")
        if not isinstance(name, str):
            raise ValueError(f"image {index} has no text as file_name")
        first = images.setdefault(image["id"], image)
        if first["file_name"] != name or ids.setdefault(name, image["id"]) != image["id"]:
            raise ValueError(f"image {index} has an id or a file_name that another image has")
    return tuple(images.values())


def _normalise(
    entry: dict[str, Any], what: str, needed: Sequence[str], optional: Sequence[str] = ()
) -> None:
    """Turn numbers that were written as text or with a decimal point into whole numbers.

    Raises:
        ValueError: one of those that are needed is missing, or one is no whole number.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"{what} is no object")
    for key in (*needed, *optional):
        value = entry.get(key)
        if type(value) is int:
            continue
        if value is None and key not in needed:
            entry.pop(key, None)
        elif (
            (isinstance(value, float) and value.is_integer())
            or (isinstance(value, bool) and key == "iscrowd")
            or (isinstance(value, str) and value.strip().isdecimal())
        ):
            entry[key] = int(value)
        elif value is None:
            raise ValueError(f"{what} has no {key}")
        else:
            raise ValueError(f"{what} has {str(value)[:_MAX_SHOWN]!r} as {key}, no whole number")


def _without_shape(mapping: dict[str, Any]) -> dict[str, Any]:
    mapping.pop("segmentation", None)
    return mapping
