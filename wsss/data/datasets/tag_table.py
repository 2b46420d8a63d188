"""Tables of tags: CSV as spreadsheets write it.

One row per image, after a header. The delimiter (comma, semicolon, also of full width, or tab) is
the one that splits the header into the columns below; byte-order marks, CRLF, quotes and UTF-16 are
understood.

========= ============================================
column    header, in any case
========= ============================================
image     image, photo, file, filename, file_name, path, id
tags      tags, tag, labels, label, classes, class
split     split, subset, set (optional)
========= ============================================
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss.config.data import SPLIT_COLUMNS
from wsss.config.safe_yaml import read_bytes
from wsss.data.datasets.files import IMAGES, MOST_TEXT, is_absolute
from wsss.data.datasets.free_text import plain_text
from wsss.data.datasets.tags import TagReader, Tags
from wsss.data.errors import DataError
from wsss.data.images.read import PHOTO_EXTENSIONS
from wsss.errors import raise_unless_about

_COLUMNS = {
    "image": ("image", "photo", "file", "filename", "file_name", "path", "id"),
    "tags": ("tags", "tag", "labels", "label", "classes", "class"),
    "split": SPLIT_COLUMNS,
}
_UNCLOSED = "a quotation mark is not closed"
_LINE_BREAK = re.compile(r"\r\n?|\n")
_EXTENSION = re.compile("(" + "|".join(map(re.escape, sorted(PHOTO_EXTENSIONS))) + ")$")
_DELIMITERS = (",", ";", "\t", "\uff0c", "\uff1b")


@dataclass(frozen=True, slots=True)
class TagRow:
    """One row of a table of tags."""

    image: str
    """As written, with ``/`` between folders."""
    tags: str
    split: str | None
    """None if the table has no such column."""
    line: int
    problem: str | None = None
    """Why the row cannot be read."""


def read_table(path: Path) -> list[TagRow]:
    """Read a table of tags, also with unquoted commas between the tags of a last column.

    Raises:
        DataError: the file is missing, no text, or lacks the column ``image`` or ``tags``; a
            quotation mark is not closed, so that a cell takes in the rows below it; or the rows
            have another separator than the header.
    """
    text = _text(path)
    lines = io.StringIO(text, newline="").readlines()
    for delimiter in _DELIMITERS:
        table = _Reader(lines, delimiter)
        try:
            header = next((row for row in table if any(cell.strip() for cell in row)), [])
            columns = _find_columns(header)
            if columns is not None:
                lines_of_cells = ((table.line, cells) for cells in table)
                rows = _rows(lines_of_cells, columns, _width(header))
                _refuse_other_delimiter(path, rows, delimiter)
                return rows
        except csv.Error as error:
            remedy = "close it, or take it out" if str(error) == _UNCLOSED else "save it as CSV"
            raise DataError(f"{path}: line {table.failed}: {error}; {remedy}") from None
    shown = text.partition("\n")[0].strip()[:80]
    raise DataError(
        f"{path}: its first line is {shown!r}, expected a header with the columns image and tags "
        "(separated by comma, semicolon or tab)"
    )


class _Reader:
    """The rows of a table; one that an unclosed quotation mark joins with others is an error.

    Args:
        lines: of the table, with their ends.
    """

    def __init__(self, lines: list[str], delimiter: str) -> None:
        self._lines, self._delimiter = lines, delimiter
        self._cells = self._parse(lines)
        self.line = 0
        """The last one of the row."""
        self._delimiters = 0
        """Of a row, once the header is read."""
        self.failed = 0
        """The first one of the row after it: where an error is."""

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        """The cells of a row.

        Raises:
            csv.Error: the row cannot be read.
        """
        self.failed = self.line + 1
        try:
            cells: list[str] = next(self._cells)
        except csv.Error as error:
            self._refuse_unclosed(error)
            raise
        last = self._cells.line_num
        if last > self.failed or last == len(self._lines):
            self._check_quotes(self._lines[self.line : last], cells)
        self.line = last
        if not self._delimiters and any(cell.strip() for cell in cells):
            self._delimiters = _width(cells) - 1
        return cells

    def _check_quotes(self, lines: list[str], cells: list[str]) -> None:
        """Refuse cells of several lines, unless they are closed and hold no other rows."""
        try:
            for _ in self._parse(lines, strict=True):
                pass
        except csv.Error as error:
            self._refuse_unclosed(error)
        # A list of tags, or a note, may have lines; lines with all delimiters are rows.
        for cell in cells if self._delimiters else ():
            further = _LINE_BREAK.split(cell)[1:]
            if any(line.count(self._delimiter) >= self._delimiters for line in further):
                raise csv.Error(_UNCLOSED)

    def _refuse_unclosed(self, error: csv.Error) -> None:
        if self._cells.line_num > self.failed or "unexpected end" in str(error):
            raise csv.Error(_UNCLOSED) from None

    def _parse(self, lines: list[str], *, strict: bool = False) -> Any:
        return csv.reader(lines, delimiter=self._delimiter, skipinitialspace=True, strict=strict)


class TagTable:
    """The tags of a table by image, for data sets whose images come from lists."""

    def __init__(self, path: Path, reader: TagReader) -> None:
        self.path = path
        self._tags: dict[str, Tags] = {}
        for row in read_table(path):
            tags = Tags((), row.problem) if row.problem else reader.cell(row.tags)
            key = _key(row.image)
            if self._tags.setdefault(key, tags) != tags:
                self._tags[key] = Tags((), f"{path.name} lists it twice with different tags")

    def find(self, image: str) -> Tags:
        """The tags of an image id; none if it is not in the table."""
        by_name = self._tags.get(_key(image.rpartition("/")[2]), Tags())
        return self._tags.get(_key(image), by_name)


def _key(image: str) -> str:
    """The id of an image, or of a path that leads to VOC's folder or begins at a root."""
    name = plain_text(image).casefold().rpartition(f"{IMAGES.casefold()}/")[2]
    if is_absolute(name):
        name = name.rpartition("/")[2]
    return _EXTENSION.sub("", name)


def _rows(
    lines: Iterable[tuple[int, list[str]]], columns: dict[str, int], width: int
) -> list[TagRow]:
    rows = []
    last = max(columns, key=lambda name: columns[name])
    for line, cells in lines:
        if not any(cell.strip() for cell in cells):
            continue
        problem = None
        if any(cell.strip() for cell in cells[width:]):
            if last == "tags":
                cells[columns["tags"]] = ";".join(cells[columns["tags"] :])
            else:
                problem = (
                    f"too many cells (line {line}): {len(cells)}, the header has {width}; put "
                    "the tags into quotation marks"
                )
        padded = cells + [""] * width
        values = {name: padded[index].strip() for name, index in columns.items()}
        image = values["image"].replace("\\", "/").removeprefix("./")
        split = plain_text(values["split"]).strip() if "split" in values else None
        rows.append(TagRow(image, values["tags"], split, line, problem))
    return rows


def _refuse_other_delimiter(path: Path, rows: list[TagRow], delimiter: str) -> None:
    """Refuse rows that stand in one cell each, since the header is separated by another sign."""
    for other in _DELIMITERS:
        if other != delimiter and rows and all(not r.tags and other in r.image for r in rows):
            raise DataError(
                f"{path}: the titles are separated by {delimiter!r}, but line {rows[0].line} by "
                f"{other!r}; use one of them"
            )


def _width(header: list[str]) -> int:
    """The number of titles; spreadsheets add empty ones where rows below have more cells."""
    return max(index for index, title in enumerate(header, start=1) if title.strip())


def _find_columns(header: list[str]) -> dict[str, int] | None:
    titles = [plain_text(title).strip().casefold().replace(" ", "_") for title in header]
    columns = {
        name: titles.index(word)
        for name, synonyms in _COLUMNS.items()
        for word in reversed(synonyms)  # the first synonym counts
        if word in titles
    }
    return columns if {"image", "tags"} <= set(columns) else None


def _text(path: Path) -> str:
    try:
        content = read_bytes(path, MOST_TEXT)
    except OSError as error:
        raise_unless_about(path, error)
        raise DataError(
            f"{path}: the table of tags cannot be read ({error.strerror}); set data.tags to a CSV "
            "with the columns image and tags"
        ) from None
    if kind := _workbook(content):
        raise DataError(f"{path}: is {kind}, no text; save it as 'CSV UTF-8', and name that file")
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: is not {encoding.removesuffix('-sig').upper()} (byte {error.start}); save it "
            "as 'CSV UTF-8'"
        ) from None


def _workbook(content: bytes) -> str:
    """Which spreadsheet's own file this is, by its first bytes and the names in its archive."""
    is_archive = content.startswith(b"PK\x03\x04")
    if content.startswith(b"\xd0\xcf\x11\xe0") or (is_archive and b"xl/workbook" in content):
        return "an Excel workbook"
    if is_archive and b"opendocument.spreadsheet" in content[:200]:
        return "a spreadsheet of LibreOffice"
    return ""
