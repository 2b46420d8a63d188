"""The files that say which images a data set has and what is on them, and the images: with stamps.

The workflow compares them with those that ingest read (`wsss.artifacts.watch`).
"""

from __future__ import annotations

import os
from pathlib import Path

from wsss.artifacts.watch import Stamp, files_below, stamp, stamps_of
from wsss.config.data import DataConfig
from wsss.config.paths import expand_path
from wsss.data.datasets.classes import unicode_form
from wsss.data.datasets.coco import instances_path, part_of, parts_of
from wsss.data.datasets.files import IMAGES, configured_lists, find_file, photo_files, read_lines
from wsss.data.datasets.voc import ANNOTATIONS, LISTS
from wsss.data.errors import DataError

_NO_TABLE = ("auto", "xml", "json", "masks")


def input_stamps(data: DataConfig) -> dict[str, Stamp]:
    """Path → stamp of what ingest reads, as far as it exists; nothing is opened but VOC's lists.

    Args:
        data: of any kind but ``demo``, whose files a rule draws.
    """
    root = expand_path(data.root)
    if data.kind == "folder":
        masks = (expand_path(data.masks),) if data.masks else ()
        stamps = stamps_of(photo_files(root, exclude=masks))
    elif data.kind == "coco":
        stamps = {}
        for part in parts_of(data):
            stamps |= stamps_of(photo_files(root / f"{part}2014"))
    else:
        stamps = stamps_of(photo_files(root / IMAGES))
        if data.tags in ("auto", "xml"):
            stamps |= stamps_of(files_below(root / ANNOTATIONS))
        stamps = _listed(stamps, _lists(data, root))
    return stamps | {str(path): there for path in _tables(data, root) if (there := stamp(path))}


def _tables(data: DataConfig, root: Path) -> list[Path]:
    """Files that may hold lists or tags."""
    paths = _lists(data, root)
    if data.kind == "coco":
        paths += [instances_path(root, part) for part in parts_of(data)]
    if data.kind == "folder":
        paths.append(root / "tags.csv")
    if data.tags not in _NO_TABLE:
        paths.append(find_file(data.tags, root))
    return paths


def _lists(data: DataConfig, root: Path) -> list[Path]:
    paths = []
    for _, name in configured_lists(data):
        if data.kind == "coco" and part_of(name):
            continue
        paths += [root / LISTS / f"{name}.txt", find_file(name, root)]
    return [path for path in paths if path.is_file()]


def _listed(stamps: dict[str, Stamp], lists: list[Path]) -> dict[str, Stamp]:
    """Those whose name is on a list: VOC's folders also hold images of other lists."""
    names: set[str] = set()
    for path in lists:
        try:
            lines = read_lines(path)
        except DataError:
            return stamps
        words = {word for line in lines for word in (line, *line.split())}
        names |= {name for word in words for name in (_form(word), _stem(word))}
    return {path: there for path, there in stamps.items() if _stem(path) in names}


def _stem(path: str) -> str:
    return os.path.splitext(_form(path))[0]


def _form(path: str) -> str:
    """The file's name in one form for all ways to write it."""
    return unicode_form(os.path.basename(path)).casefold()
