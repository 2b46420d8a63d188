"""Tables of tags: CSV as spreadsheets write it.

One row an image, with a header. The delimiter (comma, semicolon, tab) is the one that splits the
header into known columns; byte-order marks, CRLF, quotes and UTF-16 are understood.

========= ============================================
column    header, in any case
========= ============================================
image     image, file, filename, file_name, path, id
tags      tags, tag, labels, label, classes, class
split     split, subset, set (optional)
========= ============================================
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wsss.config.safe_yaml import read_bytes
from wsss.data.datasets.classes import unicode_form
from wsss.data.datasets.files import MOST_TEXT
from wsss.data.datasets.tags import TagReader, Tags
from wsss.data.errors import DataError
from wsss.data.images.read import PHOTO_EXTENSIONS

_COLUMNS = {
    "image": ("image", "file", "filename", "file_name", "path", "id"),
    "tags": ("tags", "tag", "labels", "label", "classes", "class"),
    "split": ("split", "subset", "set"),
}
_EXTENSION = re.compile("(" + "|".join(map(re.escape, sorted(PHOTO_EXTENSIONS))) + ")$")
_DELIMITERS = (",", ";", "\t")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table of tags."""

    image: str
    """As written, with ``/`` between folders."""
    tags: str
    split: str | None
    """None if the table has no such column."""
    line: int


def read_table(path: Path) -> list[Row]:
    """Read a table of tags.

    Unquoted commas between tags in the last column are understood.

    Raises:
        DataError: missing, not text, or without the columns ``image`` and ``tags``.
    """
    text = _text(path)
    for delimiter in _DELIMITERS:
        reader = csv.reader(
            io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True
        )
        try:
            header = next((row for row in reader if any(cell.strip() for cell in row)), [])
            columns = _find_columns(header)
            if columns is not None:
                numbered = ((reader.line_num, cells) for cells in reader)
                return _rows(numbered, columns, len(header))
        except csv.Error as error:
            raise DataError(f"{path}: line {reader.line_num}: {error}; save it as CSV") from None
    shown = text.partition("\n")[0].strip()[:80]
    raise DataError(
        f"{path}: its first line is {shown!r}, expected a header with the columns image and tags "
        "(separated by comma, semicolon or tab)"
    )


class TagTable:
    """The tags of a table by image, for data sets whose images come from lists.

    Args:
        path: of the table.
        reader: of its cells.
    """

    def __init__(self, path: Path, reader: TagReader) -> None:
        self._tags: dict[str, Tags] = {}
        for row in read_table(path):
            tags, key = reader.cell(row.tags), _key(row.image)
            if self._tags.setdefault(key, tags) != tags:
                self._tags[key] = Tags((), f"{path.name} lists it twice with different tags")

    def find(self, image: str) -> Tags:
        """The tags of an image id; none if the table does not have it."""
        for key in (_key(image), _key(image.rpartition("/")[2])):
            if key in self._tags:
                return self._tags[key]
        return Tags()


def _key(image: str) -> str:
    return _EXTENSION.sub("", unicode_form(image).casefold())


def _rows(lines: Iterable[tuple[int, list[str]]], columns: dict[str, int], width: int) -> list[Row]:
    rows = []
    last = max(columns, key=lambda name: columns[name])
    for number, cells in lines:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) > width and last == "tags":
            cells[columns["tags"]] = ";".join(cells[columns["tags"] :])
        found = {
            name: cells[index].strip() if index < len(cells) else ""
            for name, index in columns.items()
        }
        image = found["image"].replace("\\", "/").removeprefix("./")
        rows.append(Row(image, found["tags"], found.get("split"), number))
    return rows


def _find_columns(header: list[str]) -> dict[str, int] | None:
    titles = [title.strip().casefold().replace(" ", "_") for title in header]
    found = {}
    for name, synonyms in _COLUMNS.items():
        index = next((titles.index(word) for word in synonyms if word in titles), None)
        if index is not None:
            found[name] = index
    return found if {"image", "tags"} <= set(found) else None


def _text(path: Path) -> str:
    try:
        content = read_bytes(path, MOST_TEXT)
    except OSError as error:
        raise DataError(
            f"{path}: the table of tags cannot be read ({error.strerror}); set data.tags to a CSV "
            "with the columns image and tags"
        ) from None
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: is not {encoding.removesuffix('-sig').upper()} (byte {error.start}); save it "
            "as 'CSV UTF-8'"
        ) from None
