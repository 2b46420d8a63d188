"""A user's photos: files anywhere below a folder, and a table of tags.

The id of a photo is its path below the folder without the extension. Every photo and every row of
the table becomes a candidate, so that an untagged photo or a row without photo is always reported.
Splits come from the table's ``split`` column or from the text files that ``data.train_list`` and
``data.val_list`` name; without either, all photos are for training.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from wsss.config.base import Split, Variant
from wsss.config.data import DataConfig
from wsss.config.paths import expand_path
from wsss.data.counted import counted, first_names
from wsss.data.datasets.candidates import Candidate, Dataset
from wsss.data.datasets.classes import (
    ClassList,
    customise,
    folder_classes,
    is_background,
    listed_classes,
    spelling,
)
from wsss.data.datasets.files import (
    PhotoIndex,
    configured_lists,
    find_file,
    find_root,
    is_absolute,
    nested_hint,
    read_lines,
)
from wsss.data.datasets.free_text import split_names
from wsss.data.datasets.tag_table import TagRow, read_table
from wsss.data.datasets.tags import TagReader
from wsss.data.errors import DataError
from wsss.data.images.read import PHOTO_EXTENSIONS

_log = logging.getLogger(__name__)
_SHOWN = 3
_SYNONYMS = {"train": {"train", "training"}, "val": {"val", "valid", "validation"}}


def read_folder(data: DataConfig, variant: Variant) -> Dataset:
    """Read photos and their table.

    Raises:
        DataError: the folder, the table or a list is missing, or there is no class.
    """
    root = find_root(data.root)
    table = root / "tags.csv" if data.tags == "auto" else find_file(data.tags, root)
    if not table.exists():
        raise DataError(
            f"{table}: no such table of tags{nested_hint(root, table.name)}; expected a CSV with "
            "the columns image and tags there, or its path as data.tags"
        )
    rows = read_table(table)
    classes = customise(_classes(data, rows, table), data.prompts, data.backgrounds)
    lists = _lists(data, root)
    masks = [expand_path(data.masks)] if data.masks else []
    index = PhotoIndex(root, exclude=(*masks, table, *lists.values()))
    candidates: list[Candidate] = []
    splits = _listed_splits(lists, index, candidates) if lists else None

    by_photo: defaultdict[Path, list[TagRow]] = defaultdict(list)
    for row in rows:
        photos = index.find(row.image) if row.image else []
        if len(photos) == 1:
            by_photo[photos[0]].append(row)
        else:
            candidates.append(_without_photo(row, photos, table, index))
    if index.foreign_paths:
        name, photo = next(iter(index.foreign_paths.items()))
        _log.warning(
            "%s: %s on another machine; the photos of the same name here are used, e.g. %s for %r",
            *(table, counted(len(index.foreign_paths), "path"), photo, name),
        )
    reader = TagReader(classes)
    for path in sorted((*index.paths, *index.others)):
        candidate = Candidate(index.id(path), "train", path)
        candidates += _of_photo(candidate, by_photo.get(path, []), reader, splits, data, table.name)
    return Dataset(classes, tuple(candidates), (table, *lists.values()))


def _of_photo(
    photo: Candidate,
    rows: list[TagRow],
    reader: TagReader,
    splits: dict[Path, Split] | None,
    data: DataConfig,
    table: str,
) -> Iterator[Candidate]:
    """One candidate per row of a photo; without row, one that says so."""
    ending = photo.path.suffix
    if not rows and ending.lower() not in PHOTO_EXTENSIONS and photo.path not in (splits or {}):
        unusual = f"{ending!r} is not an ending of photos" if ending else "it has no ending"
        yield replace(photo, skipped=f"in no list and not in the table, and {unusual}")
        return
    if not rows:
        split = "train" if splits is None else splits.get(photo.path)
        if split is None:
            yield replace(photo, skipped="in no list and not in the table")
        else:
            skipped = f"no tag: no row in {table}" if split == "train" else None
            yield replace(photo, split=split, skipped=skipped)
        return
    if unreadable := next((row.problem for row in rows if row.problem), None):
        yield replace(photo, problem=unreadable)
        return
    if len({reader.cell(row.tags) for row in rows}) > 1:
        lines = ", ".join(str(row.line) for row in rows)
        yield replace(
            photo, problem=f"{table} lists it with different tags (lines {lines}); merge them"
        )
        return
    tags = reader.cell(rows[0].tags)
    for row in rows:
        split, problem, skipped = _split(row, photo.path, splits, data)
        problem = None if skipped else tags.problem or problem
        if not (problem or skipped or tags.indices) and split == "train":
            skipped = f"no tag: {table} line {row.line} names none"
        yield Candidate(photo.id, split, photo.path, tags.indices, problem, skipped)


def _split(
    row: TagRow, path: Path, splits: dict[Path, Split] | None, data: DataConfig
) -> tuple[Split, str | None, str | None]:
    """The split of a row; why it has none; why it is left out on purpose."""
    if splits is not None:
        return splits.get(path, "train"), None, None if path in splits else "in no list"
    if row.split is None:
        return "train", None, None
    if not row.split:
        return "train", f"the split column is empty (line {row.line})", None
    for split, name in configured_lists(data):
        if row.split.casefold() in _SYNONYMS.get(name, {name.casefold()}):
            return split, None, None
    return "train", None, f"split {row.split!r} is neither data.train_list nor data.val_list"


def _without_photo(row: TagRow, photos: list[Path], table: Path, index: PhotoIndex) -> Candidate:
    line = f"{table.name} line {row.line}"
    if not row.image:
        return Candidate("", "train", table, problem=f"{line} names no image")
    problem = _why_missing(row.image, line, index)
    if photos:
        names = [str(path.relative_to(index.root)) for path in photos]
        problem = (
            f"{line}: {row.image!r} fits several photos: {first_names(names, _SHOWN)}; write the "
            "sub folder, or rename one"
        )
    return Candidate(row.image, "train", index.root / row.image, problem=problem)


def _why_missing(name: str, where: str, index: PhotoIndex) -> str:
    """Why there is no photo of this name, once it was looked for."""
    path = index.root / name
    if os.path.isdir(path):
        return f"is a folder ({where}); name each photo"
    if os.path.isfile(path):
        if is_absolute(name) or ".." in path.parts:
            return f"missing file ({where}): outside of data.root; move it there"
        if path.suffix.lower() in PHOTO_EXTENSIONS:
            return f"left out ({where}): hidden files, masks and results are no photos"
        return f"format not read: {path.suffix} ({where}); it is no ending of photos"
    near = ", ".join(str(photo) for photo in index.near(name)[:2])
    return f"missing file ({where})" + f"; did you mean {near}?" * bool(near)


def _classes(data: DataConfig, rows: list[TagRow], table: Path) -> ClassList:
    by_spelling: dict[str, str] = {}
    background: dict[int, str] = {}
    for row in rows:
        for name in _names(row):
            by_spelling.setdefault(spelling(name), name)
            if is_background(name):
                background[row.line] = name
    if background:
        lines = list(map(str, background))
        raise DataError(
            f"{table}: the tag {next(iter(background.values()))!r} (line {first_names(lines)}): "
            "label 0 is the background, which is no class; take the tag out"
        )
    if data.classes:
        return listed_classes(data.classes)
    for text, name in by_spelling.items():
        words = text.split()
        if len(words) > 1 and by_spelling.keys() >= set(words):
            raise DataError(
                f"{table}: the tag {name!r} consists of the tags {' and '.join(words)}; put "
                "semicolons between several tags, or name every class in data.classes if it is one"
            )
    try:
        return folder_classes([by_spelling[key] for key in sorted(by_spelling)])
    except DataError as error:
        raise DataError(f"{table}: {error}; mend the table, or set data.classes") from None


def _names(row: TagRow) -> tuple[str, ...]:
    """The tags of a row; none if it cannot be read, which its image's candidate says."""
    try:
        return () if row.problem else split_names(row.tags)
    except DataError:
        return ()


def _lists(data: DataConfig, root: Path) -> dict[Split, Path]:
    """The text files that name the photos of a split; a plain name is no file."""
    names = configured_lists(data)
    lists = {split: find_file(name, root) for split, name in names if name.endswith(".txt")}
    for path in lists.values():
        if not path.is_file():
            raise DataError(f"{path}: no such list of photos")
    return lists


def _listed_splits(
    lists: dict[Split, Path], index: PhotoIndex, candidates: list[Candidate]
) -> dict[Path, Split]:
    """The split of each listed photo; lines that name no single photo join ``candidates``."""
    splits: dict[Path, Split] = {}
    for split, path in lists.items():
        for line in read_lines(path):
            photos = index.find(line)
            if len(photos) != 1:
                where = f"{path.name}: {line!r}"
                problem = f"fits several photos ({where})"
                if not photos:
                    problem = _why_missing(line, where, index)
                candidates.append(Candidate(line, split, index.root / line, problem=problem))
            elif splits.setdefault(photos[0], split) != split:
                raise DataError(f"{path}: {line!r} is in the training list, too; keep it in one")
    return splits
