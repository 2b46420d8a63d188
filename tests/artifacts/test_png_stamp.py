import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.builders import provenance
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.png_stamp import picture_provenance, write_picture

ORIGIN = provenance("charts", inputs={"loss.csv": "ab"}, config={"name": "für"})


def _png(shade: int = 7) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((9, 5, 3), shade, np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    write_picture(path, _png(), ORIGIN)
    return path


def test_a_picture_says_how_it_was_made(picture: Path) -> None:
    assert picture_provenance(picture) == ORIGIN
    with Image.open(picture) as image:
        image.load()  # with Pillow's checks
        assert image.getpixel((0, 0)) == (7, 7, 7)
        assert '"charts"' in image.info["wsss"]


def test_other_formats_are_written_as_they_are(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.svg", b"<svg/>", ORIGIN)
    assert (tmp_path / "a.svg").read_bytes() == b"<svg/>"


def test_every_changed_byte_is_noticed(picture: Path) -> None:
    content = picture.read_bytes()
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1
        picture.write_bytes(changed)
        with pytest.raises(ArtifactError):
            picture_provenance(picture)
    for text, match in ((_png(), "no chunk"), (content[:-40], "edited"), (b"", "no chunk")):
        picture.write_bytes(text)
        with pytest.raises(ArtifactError, match=match):
            picture_provenance(picture)


def test_the_chunk_of_another_picture_is_noticed(picture: Path) -> None:
    head, chunk = picture.read_bytes().split(b"tEXtwsss")
    other = _png(shade=8)[:-12] + head[-4:]
    picture.write_bytes(other + b"tEXtwsss" + chunk)
    with pytest.raises(ArtifactError, match="edited"):
        picture_provenance(picture)
