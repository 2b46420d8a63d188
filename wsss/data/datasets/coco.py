"""COCO 2014's files: its parts, and the instances JSON, checked, by image.

::

    train2014/*.jpg, val2014/*.jpg
    annotations/instances_{train,val}2014.json

Class k is the k-th category by ascending id; the ids have gaps (80 classes, ids 1 … 90).
"""

from __future__ import annotations

import errno
import functools
import json
import stat
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from wsss.config.data import DataConfig
from wsss.data.datasets.classes import spelling
from wsss.data.datasets.files import configured_lists
from wsss.data.datasets.words import COCO_NAMES
from wsss.data.errors import DataError
from wsss.errors import raise_unless_about

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
        raise_unless_about(path, error)
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); expected COCO's instances JSON"
        ) from None
    return _load(path, shapes, status.st_mtime_ns)


def forget_instances() -> None:
    """Free the memory of the files that were read."""
    _load.cache_clear()


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
    return image_path(image).name


def image_path(image: Mapping[str, Any]) -> PurePosixPath:
    """The file name of an image as it is written, with forward slashes."""
    return PurePosixPath(image["file_name"].replace("\\", "/"))


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
        elif (number := _whole(value)) is not None:
            entry[key] = number
        elif value is None:
            raise ValueError(f"{what} has no {key}")
        else:
            raise ValueError(f"{what} has {str(value)[:_MAX_SHOWN]!r} as {key}, no whole number")


def _whole(value: object) -> int | None:
    """A whole number that is written as text, with a decimal point or as true or false."""
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    return int(value) if isinstance(value, str) and value.strip().isdecimal() else None


def _without_shape(mapping: dict[str, Any]) -> dict[str, Any]:
    mapping.pop("segmentation", None)
    return mapping
