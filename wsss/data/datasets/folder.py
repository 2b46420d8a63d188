"""A practitioner's photos: files anywhere below a folder, and a table of tags.

The id of a photo is its path below the folder without the extension. Every photo that is found
and every row of the table becomes a candidate, so that neither an untagged photo nor a row without
photo goes unnoticed. Splits come from the table's ``split`` column, from text files that
``data.train_list`` and ``data.val_list`` name, or everything is for training.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from wsss.config.base import Variant
from wsss.config.cams import Split
from wsss.config.data import DataConfig
from wsss.config.paths import expand_path
from wsss.data.datasets.candidates import Candidate, Dataset
from wsss.data.datasets.classes import ClassList, customise, folder_classes, spelling
from wsss.data.datasets.files import PhotoIndex, find_file, find_root, read_lines
from wsss.data.datasets.tag_table import Row, read_table
from wsss.data.datasets.tags import TagReader, split_cell
from wsss.data.errors import DataError

_SYNONYMS = {"train": {"train", "training"}, "val": {"val", "valid", "validation"}}
SplitOf = dict[Path, Split]


def read_folder(data: DataConfig, variant: Variant) -> Dataset:
    """Read photos and their table.

    Raises:
        DataError: the folder, the table or a list is missing, or there is no class.
    """
    root = find_root(data.root, holds="")
    table = root / "tags.csv" if data.tags == "auto" else find_file(data.tags, root)
    rows = read_table(table)
    classes = customise(_classes(data, rows, table), data.prompts, data.backgrounds)
    index = PhotoIndex(root, without=(expand_path(data.masks),) if data.masks else ())
    lists = _lists(data, root)
    candidates: list[Candidate] = []
    splits = _listed_splits(lists, index, root, candidates) if lists else None

    by_photo: defaultdict[Path, list[Row]] = defaultdict(list)
    for row in rows:
        found = index.find(row.image) if row.image else []
        if len(found) == 1:
            by_photo[found[0]].append(row)
        else:
            candidates.append(_lost(row, found, table, root))
    reader = TagReader(classes)
    for path in index.paths:
        candidates += _of_photo(path, by_photo.get(path, []), index, reader, splits, data, table)
    return Dataset(classes, tuple(candidates), (table, *lists.values()))


def _of_photo(
    path: Path,
    rows: list[Row],
    index: PhotoIndex,
    reader: TagReader,
    splits: SplitOf | None,
    data: DataConfig,
    table: Path,
) -> list[Candidate]:
    """One candidate a row of a photo; one that says so where it has no row."""
    image = index.id(path)
    if not rows:
        split = "train" if splits is None else splits.get(path)
        if split is None:
            return [Candidate(image, "train", path, skipped="in no list and not in the table")]
        problem = f"no tag: no row in {table.name}" if split == "train" else None
        return [Candidate(image, split, path, problem=problem)]
    if len({reader.cell(row.tags) for row in rows}) > 1:
        lines = ", ".join(str(row.line) for row in rows)
        problem = f"{table.name} lists it with different tags (lines {lines}); merge them"
        return [Candidate(image, "train", path, problem=problem)]
    tags, found = reader.cell(rows[0].tags), []
    for row in rows:
        split, problem, skipped = _split(row, path, splits, data)
        problem = None if skipped else tags.problem or problem
        found.append(Candidate(image, split, path, tags.indices, problem, skipped))
    return found


def _split(
    row: Row, path: Path, splits: SplitOf | None, data: DataConfig
) -> tuple[Split, str | None, str | None]:
    """The split of a row; why it has none; why it is left out on purpose."""
    if splits is not None:
        split = splits.get(path)
        return split or "train", None, None if split else "in no list"
    if row.split is None:
        return "train", None, None
    written = row.split.casefold()
    if not written:
        return "train", f"the split column is empty (line {row.line})", None
    if written in _SYNONYMS.get(data.train_list, {data.train_list.casefold()}):
        return "train", None, None
    if data.val_list and written in _SYNONYMS.get(data.val_list, {data.val_list.casefold()}):
        return "val", None, None
    return "train", None, f"split {row.split!r} is neither data.train_list nor data.val_list"


def _lost(row: Row, found: list[Path], table: Path, root: Path) -> Candidate:
    where = f"{table.name} line {row.line}"
    if not row.image:
        return Candidate("", "train", table, problem=f"{where} names no image")
    if found:
        several = ", ".join(str(path.relative_to(root)) for path in found)
        problem = (
            f"{where}: {row.image!r} fits several photos: {several}; write the sub folder, or "
            "rename one"
        )
    else:
        problem = f"missing file ({where})"
    return Candidate(row.image, "train", root / row.image, problem=problem)


def _classes(data: DataConfig, rows: list[Row], table: Path) -> ClassList:
    if data.classes:
        return folder_classes(data.classes)
    occurring: dict[str, str] = {}
    for row in rows:
        for name in split_cell(row.tags):
            occurring.setdefault(spelling(name), " ".join(name.split()))
    try:
        return folder_classes([occurring[key] for key in sorted(occurring)])
    except DataError as error:
        raise DataError(f"{table}: {error}; mend the table, or set data.classes") from None


def _lists(data: DataConfig, root: Path) -> dict[Split, Path]:
    """The text files that name the photos of a split; a plain name is no file."""
    named: tuple[tuple[Split, str], ...] = (("train", data.train_list), ("val", data.val_list))
    found = {split: find_file(name, root) for split, name in named if name.endswith(".txt")}
    for path in found.values():
        if not path.is_file():
            raise DataError(f"{path}: no such list of photos")
    return found


def _listed_splits(
    lists: dict[Split, Path], index: PhotoIndex, root: Path, candidates: list[Candidate]
) -> SplitOf:
    """The split of each listed photo; lines without one photo are added to ``candidates``."""
    splits: SplitOf = {}
    for split, path in lists.items():
        for line in read_lines(path):
            found = index.find(line)
            if len(found) != 1:
                fits = "fits several photos" if found else "missing file"
                problem = f"{fits} ({path.name}: {line!r})"
                candidates.append(Candidate(line, split, root / line, problem=problem))
            elif splits.setdefault(found[0], split) != split:
                raise DataError(f"{path}: {line!r} is in the training list, too; keep it in one")
    return splits
