"""EXIF orientations against arrays turned with NumPy."""

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss.data.images.read import image_size, inspect_image, read_image

UPRIGHT = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3
# How a camera that wrote orientation n stored the upright picture (EXIF 2.3, tag 0x0112: where row
# 0 and column 0 of what is stored lie in the picture).
STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a[:, ::-1].transpose(1, 0, 2),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a[::-1].transpose(1, 0, 2),
}


def exif(value: int) -> Image.Exif:
    data = Image.Exif()
    data[0x0112] = value
    return data


@pytest.mark.parametrize("extension", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation(tmp_path: Path, orientation: int, extension: str) -> None:
    stored = np.ascontiguousarray(STORED[orientation](UPRIGHT))
    path = tmp_path / f"a.{extension}"
    options = {"lossless": True} if extension == "webp" else {}
    Image.fromarray(stored).save(path, exif=exif(orientation), **options)
    np.testing.assert_array_equal(read_image(path), UPRIGHT)
    facts = inspect_image(path)
    assert (facts.width, facts.height) == image_size(path) == (6, 4)
    turned = (f"turned upright (EXIF orientation {orientation})",)
    assert facts.notes == (() if orientation == 1 else turned)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg(tmp_path: Path, orientation: int) -> None:
    blocks = np.kron(UPRIGHT, np.ones((16, 16, 1), np.uint8))
    stored = np.ascontiguousarray(STORED[orientation](blocks))
    path = tmp_path / "a.jpg"
    Image.fromarray(stored).save(path, exif=exif(orientation), quality=100, subsampling=0)
    array = read_image(path)
    assert array.shape == blocks.shape == (*image_size(path)[::-1], 3)
    assert np.abs(array.astype(int) - blocks).max() < 12
    assert array.flags.c_contiguous


@pytest.mark.parametrize("value", [0, 9, 255])
def test_orientations_that_do_not_exist_turn_nothing(tmp_path: Path, value: int) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(UPRIGHT).save(path, exif=exif(value))
    np.testing.assert_array_equal(read_image(path), UPRIGHT)
    assert inspect_image(path).notes == ()


@pytest.mark.parametrize(
    "data",
    [
        b"Exif\0\0garbage that is no TIFF header",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\xff\xff\xff\xff\0\0\0\0",
    ],
)
def test_broken_exif_is_tolerated(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(UPRIGHT).save(path, exif=data, quality=95)
    np.testing.assert_array_equal(read_image(path), np.asarray(Image.open(path)))


CUT_OFF = b"Exif\0\0MM\0*\0\0\0\x08\0\x02" + struct.pack(">HHII", 271, 2, 21, 38)
NO_ENTRIES = b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_exif_that_cannot_be_read_is_a_note(tmp_path: Path, ending: str) -> None:
    broken, plain = tmp_path / f"a.{ending}", tmp_path / f"b.{ending}"
    for path, data in ((broken, CUT_OFF), (plain, NO_ENTRIES)):
        Image.fromarray(UPRIGHT).save(path, exif=data)
    assert inspect_image(broken).notes == ("broken EXIF ignored",)
    assert inspect_image(plain).notes == ()


def test_nothing_of_broken_exif_is_on_the_screen(tmp_path: Path) -> None:
    """Pillow's warnings name no photo; those of code outside the package stay."""
    Image.fromarray(UPRIGHT).save(tmp_path / "a.jpg", exif=CUT_OFF)
    script = (
        "import sys, warnings; from pathlib import Path; from wsss.data.images.read import "
        "image_size, inspect_image, is_turned; path = Path(sys.argv[1]); print(image_size(path), "
        "is_turned(path), *inspect_image(path).notes); warnings.warn('of another')"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "a.jpg")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    height, width = UPRIGHT.shape[:2]
    assert done.stdout == f"({width}, {height}) False broken EXIF ignored\n"
    assert done.stderr.splitlines() == ["<string>:1: UserWarning: of another"]


def test_orientation_that_is_text_is_broken_exif(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    entry = struct.pack("<HHI4s", 0x0112, 2, 4, b"abc\0")  # type 2 is text
    data = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + entry + b"\0\0\0\0"
    Image.fromarray(UPRIGHT).save(path, exif=data)
    np.testing.assert_array_equal(read_image(path), UPRIGHT)
    assert inspect_image(path).notes == ("broken EXIF ignored",)
