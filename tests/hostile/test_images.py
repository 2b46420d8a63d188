"""Bad and odd images in one folder: each has its reason in the quarantine table.

The ingest runs once, in a child that may grow by a gigabyte; the headers declare terabytes.
"""

import csv
import io
import os
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .conftest import Folder, photo
from .payloads import png

Maker = Callable[[Path], object]
GOOD = [f"good {index}.jpg" for index in range(5)]


def _content(content: bytes) -> Maker:
    return lambda path: path.write_bytes(content)


def _saved(image: Image.Image, kind: str, **options: object) -> Maker:
    return lambda path: image.save(path, format=kind, **options)


def _cut(share: float) -> Maker:
    def make(path: Path) -> None:
        content = photo(path).read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return make


def _socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket has 108 bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as pipe:
            pipe.bind(path.name)
    finally:
        os.chdir(here)


def _folder_loop(path: Path) -> None:
    path.mkdir()
    (path / "back").symlink_to(path.parent, target_is_directory=True)


def _tiff_loop(path: Path) -> None:
    """Its second directory is its first."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(buffer, format="TIFF")
    content = bytearray(buffer.getvalue())
    first = struct.unpack("<I", content[4:8])[0]
    count = struct.unpack("<H", content[first : first + 2])[0]
    offset = first + 2 + 12 * count
    content[offset : offset + 4] = struct.pack("<I", first)
    path.write_bytes(content)


def _bmp(width: int, height: int) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head


def _gif(width: int, height: int) -> bytes:
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\x00;"
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0" + b"\0" * 6 + frame


def _webp(width: int, height: int) -> bytes:
    head = b"\0\0\0\0" + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + head
    return b"RIFF" + struct.pack("<I", len(body)) + body


PIXELS = np.random.default_rng(1).integers(0, 255, (8, 9, 3), dtype=np.uint8)
RGB = Image.fromarray(PIXELS)
BROKEN = bytearray(png(9, 8))
BROKEN[-20] ^= 255
TEXT_BOMB = b"note\0\0" + zlib.compress(bytes(100 * 2**20))

UNUSABLE: dict[str, tuple[Maker, str]] = {
    "truncated.jpg": (_cut(0.6), "cannot be decoded: image file is truncated"),
    "header only.jpg": (_cut(0.05), "cannot be decoded: Truncated File Read"),
    "bomb.png": (_content(png(100_000, 100_000, rows=b"")), "over data.max_pixels"),
    "bomb.bmp": (_content(_bmp(60_000, 60_000)), "over data.max_pixels"),
    "bomb.gif": (_content(_gif(65_535, 65_535)), "over data.max_pixels"),
    "bomb.webp": (_content(_webp(16_000, 16_000)), ""),
    "bomb in a text.png": (
        _content(png(9, 8, chunks=[(b"zTXt", TEXT_BOMB)])),
        "Decompressed data too large",
    ),
    "bomb of rows.png": (_content(png(9, 8, rows=b"\1" * 50)), "cannot be decoded"),
    "flipped.png": (_content(bytes(BROKEN)), "cannot be"),
    "no side.png": (_content(png(0, 0)), "not an image of a known format"),
    "float.tif": (_saved(Image.fromarray(np.ones((8, 9), np.float32)), "TIFF"), "32-bit pixels"),
    "zero.jpg": (_content(b""), "empty file (zero bytes)"),
    "text.jpg": (_content(b"no picture"), "not an image of a known format (begins with"),
    "script.jpg": (_content(b"#!/bin/sh\ntouch ran\n"), "not an image of a known format"),
    "postscript.jpg": (
        _content(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 8\n(ran) (w) file\n"),
        "not an image of a known format",
    ),
    "vector.png": (_content(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "not an image"),
    "phone.jpg": (_content(b"\0\0\0\x18ftypheic" + bytes(40)), "HEIC photo"),
    "pipe.jpg": (os.mkfifo, "is no file but a folder, pipe"),
    "socket.jpg": (_socket, "is no file but a folder, pipe"),
    "device.jpg": (lambda path: path.symlink_to("/dev/zero"), "is no file but a folder, pipe"),
    "itself.jpg": (lambda path: path.symlink_to(path.name), "cannot be read"),
    "nowhere.jpg": (lambda path: path.symlink_to("not/there"), "missing file"),
    "outside.jpg": (lambda path: path.symlink_to("/proc/self/environ"), "empty file"),
    "a folder.jpg": (_folder_loop, "is a folder (tags.csv line"),
    "line\nend.jpg": (photo, "holds a backslash, a control character"),
    "return\r.jpg": (photo, "holds a backslash, a control character"),
    "colour\x1b[31m.jpg": (photo, "holds a backslash, a control character"),
    "back\\slash.jpg": (photo, "holds a backslash, a control character"),
    f"{'long' * 51}.jpg": (photo, "is longer than 200 bytes"),
    os.fsdecode(b"latin \xe9.jpg"): (photo, "bytes that are no UTF-8"),
    "Ame\u0301lie.jpg": (photo, "no tag: no row"),  # the row fits both
    "Am\u00e9lie.jpg": (photo, "no tag: no row"),
}
USED: dict[str, tuple[Maker, str]] = {
    "film.gif": (
        _saved(RGB, "GIF", save_all=True, append_images=[RGB.rotate(180)]),
        "first of 2 frames used",
    ),
    "loop.tif": (_tiff_loop, "grey converted to RGB"),
    "CASE.jpg": (lambda path: photo(path, 5), ""),
    "case.jpg": (
        lambda path: photo(path, 6),
        "differs from id 'CASE' in case or",
    ),
    "and more.jpg": (lambda path: photo(path).open("ab").write(b"PK\3\4" + bytes(99)), ""),
}


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, tuple[str, str]], str]:
    """The reason in the quarantine table by file name, and the manifest."""
    folder = Folder(tmp_path_factory.mktemp("hostile"))
    for seed, name in enumerate(GOOD, 100):
        photo(folder.root / name, seed)
    for name, (make, _) in {**UNUSABLE, **USED}.items():
        make(folder.root / name)
    buffer = io.StringIO()
    table = csv.writer(buffer)
    table.writerow(["image", "tags"])
    table.writerows([name, "cat"] for name in [*GOOD, *UNUSABLE, *USED] if _is_text(name))
    folder.table(buffer.getvalue())
    folder.ingest().done()
    with (folder.manifest / "quarantine.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert sum("fits several photos" in row["reason"] for row in rows) == 2  # of the same name
    reasons = {Path(row["file"]).name: (row["used"], row["reason"]) for row in rows}
    assert not list(folder.base.rglob("ran*"))
    return reasons, (folder.manifest / "manifest.csv").read_text()


def _is_text(name: str) -> bool:
    return all(not "\ud800" <= character <= "\udfff" for character in name)


def _shown(name: str) -> str:
    """A name as the table has it: control characters and lost bytes are written out."""
    return "".join(
        c if _is_text(c) and c not in "\n\r\x1b" else c.encode("unicode_escape").decode()
        for c in name
    )


@pytest.mark.parametrize("name", UNUSABLE, ids=ascii)
def test_unusable(ingested: tuple[dict[str, tuple[str, str]], str], name: str) -> None:
    used, reason = ingested[0][_shown(name)]
    assert used == ("skipped" if reason.startswith("no tag: no row") else "no")
    assert UNUSABLE[name][1] in reason, reason
    assert len(reason) < 500


@pytest.mark.parametrize("name", USED, ids=ascii)
def test_used(ingested: tuple[dict[str, tuple[str, str]], str], name: str) -> None:
    assert Path(name).stem in ingested[1]
    used, reason = ingested[0].get(_shown(name), ("yes", ""))
    assert used == "yes", reason
    assert USED[name][1] in reason


def test_every_good_photo_is_used(ingested: tuple[dict[str, tuple[str, str]], str]) -> None:
    for name in GOOD:
        assert Path(name).stem in ingested[1]
        assert name not in ingested[0]
