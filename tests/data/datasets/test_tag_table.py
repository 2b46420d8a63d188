import csv
import io
import re
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsss.data.datasets.classes import folder_classes
from wsss.data.datasets.tag_table import TagTable, read_table
from wsss.data.datasets.tags import TagReader
from wsss.data.errors import DataError

READER = TagReader(folder_classes(["cat", "dog", "teddy bear", "bear"]))


def table(tmp_path: Path, text: str, encoding: str = "utf-8") -> list[tuple[str, str, str | None]]:
    path = tmp_path / "tags.csv"
    path.write_bytes(text.encode(encoding))
    return [(row.image, row.tags, row.split) for row in read_table(path)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "\uff0c"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_spreadsheet_dialects(tmp_path: Path, delimiter: str, end: str, encoding: str) -> None:
    lines = ["image{0}tags", "a b.jpg{0}cat", "", "sub/é.png{0}dog"]
    text = "".join(line.format(delimiter) + end for line in lines)
    expected = [("a b.jpg", "cat", None), ("sub/é.png", "dog", None)]
    assert table(tmp_path, text, encoding) == expected


@pytest.mark.parametrize(
    "header",
    [
        "Image,Tags",
        "FILENAME,labels",
        "path,Class",
        "file name , classes",
        '"image","tags"',
        "id,tag",
        "photo,tag",
    ],
)
def test_header_synonyms(tmp_path: Path, header: str) -> None:
    assert table(tmp_path, f"{header}\na.jpg,cat\n") == [("a.jpg", "cat", None)]


def test_columns_in_any_order_with_others_between(tmp_path: Path) -> None:
    text = "set,date,labels,note,file\nval,2020,cat;dog,fine,a.jpg\n"
    assert table(tmp_path, text) == [("a.jpg", "cat;dog", "val")]


def test_unquoted_commas_between_tags(tmp_path: Path) -> None:
    text = 'image,tags\na.jpg,cat,dog\nb.jpg,"cat, dog"\nc.jpg,cat\nd.jpg\n'
    expected = [("a.jpg", "cat;dog"), ("b.jpg", "cat, dog"), ("c.jpg", "cat"), ("d.jpg", "")]
    assert [row[:2] for row in table(tmp_path, text)] == expected


def test_titles_that_a_spreadsheet_leaves_empty(tmp_path: Path) -> None:
    """It gives every row as many cells as the longest one has."""
    text = "image,tags,,\na.jpg,cat,dog,\nb.jpg,cat,,\n"
    assert [row[:2] for row in table(tmp_path, text)] == [("a.jpg", "cat;dog;"), ("b.jpg", "cat")]


def test_rows_with_another_separator_than_the_titles(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"separated by ',', but line 2 by ';'; use one of them"):
        table(tmp_path, "image,tags\na.jpg;cat\nb.jpg;dog\n")
    text = "image,tags\na.jpg\nb.jpg\n"
    assert [row[:2] for row in table(tmp_path, text)] == [("a.jpg", ""), ("b.jpg", "")]


def test_windows_paths(tmp_path: Path) -> None:
    rows = table(tmp_path, "image,tags\nsub\\a.jpg,cat\n./b.jpg,dog\n")
    assert [row[0] for row in rows] == ["sub/a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("cat", [0]),
        ("dog;cat", [1, 0]),
        ("cat, dog|cat", [0, 1]),
        ("teddy bear", [2]),
        ("cat teddy bear bear", [0, 2, 3]),
        ("Teddy_Bear; CAT ", [2, 0]),
        ("", []),
        (" ; ", []),
    ],
)
def test_cells(cell: str, expected: list[int]) -> None:
    tags = READER.cell(cell)
    assert tags.problem is None
    assert list(tags.indices) == expected


def test_unknown_tag_names_the_nearest() -> None:
    tags = READER.cell("cat; dgo")
    assert tags.problem == "unknown tag 'dgo'; did you mean 'dog'?"
    assert tags.indices == ()
    assert READER.cell("cat zebra").problem == "unknown tag 'cat zebra'"


def test_lookup_by_id(tmp_path: Path) -> None:
    path = tmp_path / "tags.csv"
    text = "image,tags\nA.JPG,cat\nsub/b,dog\nc.jpg,cat\nc.jpg,dog\ntwice,cat\ntwice,cat\n"
    path.write_text(text)
    source = TagTable(path, READER)
    assert source.find("a").indices == (0,)
    assert source.find("other/a").indices == (0,)
    assert source.find("sub/b").indices == (1,)
    assert source.find("b").indices == ()
    assert source.find("c").problem == "tags.csv lists it twice with different tags"
    assert source.find("twice").indices == (0,)


def test_lookup_by_paths_and_loose_headers(tmp_path: Path) -> None:
    path = tmp_path / "tags.csv"
    path.write_text("\u200bImage\uff0cx,\uff34ags\n", encoding="utf-8")
    with pytest.raises(DataError, match="expected a header"):
        read_table(path)
    path.write_text(
        "im\u200bage,\uff54ags,split\n/data/VOC2012/JPEGImages/a.jpg,cat,\nJPEGImages/sub/b.jpg,dog,\n"
        "C:\\voc\\c.jpg,\"['cat', 'dog']\",\nd.jpg,cat,dog,train\n",
        encoding="utf-8",
    )
    source = TagTable(path, READER)
    assert [source.find(image).indices for image in ("a", "sub/b", "c")] == [(0,), (1,), (0, 1)]
    assert str(source.find("d").problem).startswith("too many cells (line 5)")


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ('UPPER.JPG,"horse\na.jpg,cat\nb.jpg,dog\n', 2),
        ('a.jpg,cat\n\n"UPPER.JPG,horse\nb.jpg,dog\n', 4),  # before the name
        ('a.jpg,cat\nUPPER.JPG,"horse\nb.jpg,"dog"\nc.jpg,cat\n', 3),  # the next one closes it
        ('"UPPER.JPG,horse\n"b.jpg",dog\nc.jpg,cat\n', 2),
        ('UPPER.JPG,"horse\nb.jpg,dog"\nc.jpg,cat\n', 2),  # each is well-formed as it is
        ('UPPER.JPG,"horse\nb.jpg,""\nc.jpg,cat\n', 2),
        ('a.jpg,"cat', 2),
        ('a.jpg,"cat\n', 2),
        ('a.jpg,"cat\n' + "b.jpg,dog\n" * 20_000, 2),  # more than the reader takes for a cell
    ],
)
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_a_quotation_mark_that_is_not_closed(
    tmp_path: Path, rows: str, line: int, delimiter: str
) -> None:
    path = tmp_path / "tags.csv"
    path.write_text(f"image,tags\n{rows}".replace(",", delimiter))
    with pytest.raises(DataError) as raised:
        read_table(path)
    expected = f"{path}: line {line}: a quotation mark is not closed; close it, or take it out"
    assert str(raised.value) == expected


@pytest.mark.parametrize(
    ("names", "first", "kind"),
    [
        (("[Content_Types].xml", "xl/workbook.xml"), b"<?xml", "an Excel workbook"),
        (
            ("mimetype", "content.xml"),
            b"application/vnd.oasis.opendocument.spreadsheet",
            "a spreadsheet of LibreOffice",
        ),
    ],
)
def test_files_of_spreadsheets(
    tmp_path: Path, names: tuple[str, ...], first: bytes, kind: str
) -> None:
    path = tmp_path / "tags.xlsx"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, first)
    with pytest.raises(DataError, match=rf"xlsx: is {kind}, no text; save it as 'CSV UTF-8'"):
        read_table(path)
    path.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500))
    with pytest.raises(DataError, match="is an Excel workbook"):
        read_table(path)


def test_lines_of_a_cell(tmp_path: Path) -> None:
    """Spreadsheets write them, in lists and in notes."""
    text = 'image,note,tags\n"a.jpg","one, two,\r\nthree",cat\nb.jpg,,"cat\ndog"\nc.jpg,,"cat"'
    rows = [("a.jpg", "cat", None), ("b.jpg", "cat\ndog", None), ("c.jpg", "cat", None)]
    assert table(tmp_path, text) == rows


NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\\\0"), min_size=1
).filter(
    lambda name: (
        name == name.strip()
        and not name.startswith("./")
        and not re.search(r"[\r\n].*[,;\t]", name, re.DOTALL)  # a line of it could be a row
    )
)


@given(st.lists(NAMES, min_size=1, max_size=5), st.sampled_from([",", ";", "\t"]))
def test_names_survive(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], delimiter: str
) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter)
    writer.writerow(["image", "tags"])
    writer.writerows([name, "cat"] for name in names)
    path = tmp_path_factory.mktemp("tables") / "tags.csv"
    path.write_text(buffer.getvalue(), encoding="utf-8", newline="")
    assert [(row.image, row.tags) for row in read_table(path)] == [(name, "cat") for name in names]
