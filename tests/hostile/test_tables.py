"""Bad tables of tags and lists of images: refused with the cause, or without the bad row."""

import os
from collections.abc import Callable

import pytest

from .conftest import Folder, photo

HEAD = "image,tags\ngood.jpg,cat\n"

REFUSED: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "empty": ("", ("first line is ''", "expected a header with the columns image and tags")),
    "no header": ("good.jpg,cat\n", ("first line is 'good.jpg,cat'", "expected a header")),
    "no tags column": ("image,colour\ngood.jpg,red\n", ("expected a header",)),
    "no image column": ("tags,split\ncat,train\n", ("expected a header",)),
    "header only": ("image,tags\n", ("no image is left to use", "quarantine.csv")),
    "not UTF-8": (HEAD.encode() + b"caf\xe9.jpg,cat\n", ("is not UTF-8", "CSV UTF-8")),
    "cut UTF-16": (b"\xff\xfei\0m\0a", ("is not UTF-16", "CSV UTF-8")),
    "UTF-16 unmarked": (HEAD.encode("utf-16-le"), ("its first line is", "expected a header")),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), ("is not UTF-8",)),
    "cell of 10 MB": (HEAD + "x.jpg," + "x" * 10**7 + "\n", ("line 3", "field larger", "as CSV")),
    "quote left open": (
        HEAD + '"x.jpg,cat\n' + "y" * 200_000,
        ("line 3", "quotation mark is not closed"),
    ),
}
"""Table → pieces of the message, in addition to the file."""

ROWS: dict[str, tuple[str, str]] = {
    "unknown class": ("x.jpg,unicorn\n", "unknown tag 'unicorn'"),
    "class number": ("x.jpg,1000000000\n", "unknown tag '1000000000'"),
    "tag of 100 kB": (f"x.jpg,{'cat' * 30_000}\n", "unknown tag 'catcat"),
    "10,000 tags": (f"x.jpg,{';'.join(f't{n}' for n in range(10_000))}\n", "and 9995 more"),
    "10,000 words": (f"x.jpg,{' '.join(['cat'] * 9_999)} x\n", "unknown tag 'cat cat"),
    "conflicting rows": ("x.jpg,cat\nx.jpg,dog\n", "lists it with different tags (lines 3, 4)"),
    "no such file": ("gone.jpg,cat\n", "missing file (tags.csv line 3)"),
    "a way out": ("../x.jpg,cat\n", "missing file (tags.csv line 3)"),
    "an absolute path": ("/etc/hostname,cat\n", "missing file (tags.csv line 3)"),
    "NUL": ("a\0b.jpg,cat\n", "holds a backslash, a control character"),
    "no name": (",cat\n", "tags.csv line 3 names no image"),
    "overlong name": (f"{'x' * 5000},cat\n", "is longer than 200 bytes"),
    "no tag": ("x.jpg,\n", "no tag"),
    "half a list": ("x.jpg,['cat'\n", "tags that are no list of names"),
    "a dictionary": ("x.jpg,\"{'cat': 1}\"\n", "tags that are no list of names"),
    "another ending": ("good.heic2,cat\n", "missing file (tags.csv line 3); did you mean"),
    "formula": ("x.jpg,=cmd()\n", "unknown tag '=cmd()'"),
}
"""Further rows → the reason in the quarantine table; the good photo stays."""


@pytest.mark.parametrize("name", REFUSED)
def test_a_table_that_cannot_be_read_is_refused(folder: Folder, name: str) -> None:
    text, pieces = REFUSED[name]
    folder.table(text)
    outcome = folder.ingest()
    outcome.refused(*pieces)
    assert "tags.csv" in outcome.text or "quarantine.csv" in outcome.text
    assert len(outcome.text) < 2000
    assert not (folder.manifest / "manifest.csv").exists()


@pytest.mark.parametrize("name", ROWS)
def test_a_bad_row_excludes_only_itself(folder: Folder, name: str) -> None:
    row, reason = ROWS[name]
    photo(folder.root / "x.jpg", 1)
    folder.table(HEAD + row)
    folder.ingest().done()
    table = (folder.manifest / "quarantine.csv").read_text()
    assert reason in table
    assert len(table) < 2000 + 2 * 5000 * ("overlong" in name)  # the name as file and as id
    manifest = (folder.manifest / "manifest.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in manifest] == ["id", "good"]


@pytest.mark.parametrize(
    ("tags", "pieces"),
    [
        ("/dev/zero", ("/dev/zero", "is no regular file", "set data.tags")),
        ("pipe.csv", ("pipe.csv", "is no regular file", "set data.tags")),
        ("gone.csv", ("gone.csv", "no such table of tags", "its path as data.tags")),
        ("../photos", ("Is a directory", "set data.tags")),
    ],
)
def test_tables_must_be_regular_files(folder: Folder, tags: str, pieces: tuple[str, ...]) -> None:
    os.mkfifo(folder.root / "pipe.csv")
    folder.ingest(data={"tags": str(folder.root / tags)}).refused(*pieces)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a tag with an escape sequence", 'good.jpg,"a\x1b[31m"\n'),
        ("300 classes", "".join(f"good.jpg,t{n}\n" for n in range(300))),
    ],
)
def test_impossible_classes_are_refused(folder: Folder, name: str, content: str) -> None:
    folder.table("image,tags\n" + content)
    outcome = folder.ingest(data={"classes": []})
    outcome.refused("tags.csv", "class", "mend the table, or set data.classes")
    assert "\x1b" not in outcome.text


def test_a_background_tag_is_refused(folder: Folder) -> None:
    folder.table("image,tags\ngood.jpg,\"['cat', 'Background']\"\n")
    outcome = folder.ingest(data={"classes": []})
    outcome.refused("tags.csv: the tag 'Background' (line 2)", "label 0 is the background")
    assert not (folder.manifest / "manifest.csv").exists()


def _list(content: bytes) -> Callable[[Folder], None]:
    return lambda folder: (folder.root / "some.txt").write_bytes(content) and None


@pytest.mark.parametrize(
    ("make", "pieces"),
    [
        (_list(b"good.jpg\n\xff\xfe\n"), ("some.txt", "is not UTF-8", "one image id per line")),
        (lambda folder: os.mkfifo(folder.root / "some.txt"), ("some.txt", "no such list")),
        (lambda folder: (folder.root / "some.txt").mkdir(), ("some.txt", "no such list")),
        (_list(b""), ("no image is left",)),
    ],
)
def test_a_bad_list_is_refused(
    folder: Folder, make: Callable[[Folder], None], pieces: tuple[str, ...]
) -> None:
    make(folder)
    folder.ingest(data={"train_list": "some.txt"}).refused(*pieces)


def test_lines_outside_the_folder_are_listed(folder: Folder) -> None:
    _list(b"good.jpg\n../../etc/passwd\n/etc/passwd\n~/x\n$(touch ran).jpg\n")(folder)
    folder.ingest(data={"train_list": "some.txt"}).done()
    table = (folder.manifest / "quarantine.csv").read_text()
    assert table.count("missing file (some.txt:") == 4
    assert "good,train" in (folder.manifest / "manifest.csv").read_text()
