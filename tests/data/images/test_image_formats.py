"""Each hostile or unusual file is either read as RGB or refused with a reason."""

import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss.data.errors import ImageError
from wsss.data.images.read import image_size, inspect_image, read_image

from ...hostile.payloads import png

RAMP = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))


def refusal(path: Path, **options: int) -> str:
    """The reason, which is the same for inspecting and reading."""
    with pytest.raises(ImageError) as inspected:
        inspect_image(path, **options)
    with pytest.raises(ImageError) as read:
        read_image(path, **options)
    assert read.value.reason == inspected.value.reason
    assert str(read.value) == f"{path}: {read.value.reason}"
    return read.value.reason


def test_plain_photo(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(RAMP).convert("RGB").save(path, quality=95)
    array = read_image(path)
    assert array.dtype == np.uint8
    assert array.flags.c_contiguous
    assert array.flags.writeable
    np.testing.assert_array_equal(array, np.asarray(Image.open(path)))
    facts = inspect_image(path)
    assert (facts.width, facts.height, facts.notes) == (256, 4, ())


def _cut(share: float, **options: object) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        NOISE.save(path, **options)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return make


def _content(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut-30.jpg": (_cut(0.3, quality=95), "cannot be decoded"),
    "cut-95.jpg": (_cut(0.95, quality=95), "cannot be decoded"),
    "cut.png": (_cut(0.5), "cannot be decoded"),
    "missing.jpg": (lambda path: None, "missing file"),
    "folder.jpg": (Path.mkdir, "is no file but a folder, pipe"),
    "int32.tif": (lambda path: Image.fromarray(RAMP.astype(np.int32)).save(path), "no fixed white"),
    "float.tif": (lambda path: Image.fromarray(np.float32(RAMP)).save(path), "no fixed white"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path: Path, name: str) -> None:
    make, reason = REFUSED[name]
    make(tmp_path / name)
    assert reason in refusal(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff"])
def test_a_size_needs_a_header(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    for reader in (image_size, inspect_image):
        with pytest.raises(ImageError, match=r"a\.jpg"):
            reader(tmp_path / "a.jpg")


def test_the_header_shows_a_size_over_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(RAMP).save(path)
    assert inspect_image(path, max_pixels=1024).width == 256
    expected = "too large: 256 x 4 = 1024 pixels, over data.max_pixels = 1023; raise it, or scale"
    assert refusal(path, max_pixels=1023).startswith(expected)


@pytest.mark.parametrize("side", [11_000, 60_000])  # Pillow would warn, or raise an error
def test_header_bomb_is_never_decoded(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(side, side, rows=b""))  # no pixels: decoding would fail
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert f"{side} x {side}" in refusal(path)


def test_a_raised_limit_applies_to_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # it would refuse from 200 on
    path = tmp_path / "a.png"
    Image.fromarray(RAMP).save(path)
    shapes: list[tuple[int, ...]] = []
    threads = [
        threading.Thread(target=lambda: shapes.append(read_image(path, max_pixels=2000).shape))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shapes == [(4, 256, 3)] * 8
    assert Image.MAX_IMAGE_PIXELS == 100


def test_ycck_jpeg(tmp_path: Path) -> None:
    """YCCK is CMYK whose colours are stored as YCC; only the Adobe marker tells them apart."""
    path = tmp_path / "a.jpg"
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(path, quality=95)
    content = path.read_bytes()
    at = content.index(b"Adobe") + 11
    ycck = content[:at] + b"\2" + content[at + 1 :]
    path.write_bytes(ycck)
    assert inspect_image(path).notes == ("CMYK converted to RGB",)
    # The stored bytes (inverted C, M, Y, K) = (255, 0, 0, 255) are now Y, Cb, Cr, K, and the
    # inverse of the RGB that they stand for is the stored, again inverted, ink.
    y, cb, cr = 255.0, 0 - 128.0, 0 - 128.0
    rgb = np.array([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb])
    np.testing.assert_allclose(read_image(path)[8, 8], 255 - rgb.clip(0, 255), atol=6)


LAYERED = np.full((4, 256, 4), 200, np.uint8)
LAYERED[..., 1:3] = 0
LAYERED[:, :3, 3] = [0, 51, 255]
DEEP = np.full((4, 3, 3), 0x7FFF, ">u2")
DEEP[..., 0], DEEP[..., 2] = 0xFF00, 0x0102
COLOURS = [(b"PLTE", bytes([255, 0, 0, 0, 255, 0, 0, 0, 255]))]
GREY, WHITE, ALPHA = (
    "grey converted to RGB",
    "transparent parts put on white",
    np.full_like(RAMP, 255),
)
HIGH_BYTE = "16-bit, high byte kept"

READ: dict[str, tuple[Image.Image | bytes, list[object], tuple[str, ...]]] = {
    "png.jpg": (png(3, 1), [[0, 0, 0]] * 3, ("extension .jpg, content PNG",)),
    "cmyk.jpg": (
        Image.new("CMYK", (16, 16), (0, 255, 255, 0)), [[255, 0, 0]] * 3, ("CMYK converted to RGB",)
    ),
    "deep.png": (  # scaled, not clipped
        Image.fromarray((RAMP.astype(np.uint16) << 8) + 255 - RAMP), [0, 1, 2], (HIGH_BYTE, GREY)
    ),
    "deep.tif": (Image.fromarray(RAMP.astype(np.uint16) << 8), [0, 1, 2], (HIGH_BYTE, GREY)),
    "deep.pgm": (Image.fromarray(RAMP.astype(np.uint16) << 8), [0, 1, 2], (HIGH_BYTE, GREY)),
    "deep colours.png": (
        png(3, 4, depth=16, rows=b"".join(b"\0" + row.tobytes() for row in DEEP)),
        [[255, 127, 1]] * 3,
        (HIGH_BYTE,),
    ),
    "grey.jpg": (Image.fromarray(RAMP), [0, 1, 2], (GREY,)),
    "bit.png": (Image.fromarray(RAMP > 1), [0, 0, 255], ("1-bit converted to RGB",)),
    "transparent.png": (
        Image.fromarray(LAYERED), [[255, 255, 255], [244, 204, 204], [200, 0, 0]], (WHITE,)
    ),
    "opaque.png": (
        Image.fromarray(np.dstack([RAMP] * 3 + [ALPHA])),
        [0, 1, 2],
        ("opaque alpha channel dropped",),
    ),
    "grey with alpha.png": (
        Image.fromarray(np.dstack([RAMP, np.where(RAMP == 1, 0, ALPHA)])),
        [0, 255, 2],
        (GREY, WHITE),
    ),
    "transparent colour.png": (
        png(3, 1, colour=3, rows=b"\0\0\1\2", chunks=[*COLOURS, (b"tRNS", bytes([255, 0]))]),
        [[255, 0, 0], [255, 255, 255], [0, 0, 255]],
        ("palette converted to RGB", WHITE),
    ),
    "transparent deep grey.png": (  # one level alone, of two with the same high byte
        png(
            3, 1, depth=16, colour=0, rows=b"\0\x12\x34\x12\x35\xff\xff",
            chunks=[(b"tRNS", b"\x12\x34")],
        ),
        [255, 18, 255],
        (HIGH_BYTE, GREY, WHITE),
    ),
    "transparent deep colour.png": (
        png(3, 1, depth=16, rows=b"\0" + b"\x12\x34" * 3 + b"\x80\0" * 6,
            chunks=[(b"tRNS", b"\x12\x34" * 3)]),
        [255, 128, 128],
        (HIGH_BYTE, WHITE),
    ),
    "palette.png": (
        png(3, 1, colour=3, rows=b"\0\2\1\0", chunks=COLOURS),
        [[0, 0, 255], [0, 255, 0], [255, 0, 0]],
        ("palette converted to RGB",),
    ),
}  # fmt: skip
"""Name → image or bytes; its first three pixels; the notes."""


@pytest.mark.parametrize("name", READ)
def test_read(tmp_path: Path, name: str) -> None:
    image, pixels, notes = READ[name]
    path = tmp_path / name
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        image.save(path, **({"quality": 95} if name.endswith("jpg") else {}))
    assert inspect_image(path).notes == notes
    array = read_image(path)[0, :3]
    tolerance = 6 if path.suffix == ".jpg" else 1 if name == "transparent.png" else 0
    expected = [pixel if isinstance(pixel, list) else [pixel] * 3 for pixel in pixels]
    np.testing.assert_allclose(array, expected, atol=tolerance)


def test_animation_uses_its_first_frame(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert (read_image(path) == (255, 0, 0)).all()
    assert inspect_image(path).notes[0] == "first of 3 frames used"


def test_any_damage_is_an_image_error(tmp_path: Path) -> None:
    """Whatever is wrong inside a file, nothing but an ImageError comes out."""
    good = {}
    for name, mode in (("a.jpg", "RGB"), ("b.png", "RGBA"), ("c.gif", "P"), ("d.tif", "CMYK"),
                       ("e.webp", "RGB"), ("f.bmp", "RGB"), ("g.jp2", "RGB")):  # fmt: skip
        Image.fromarray(RAMP).convert(mode).save(tmp_path / name)
        good[name] = (tmp_path / name).read_bytes()
        read_image(tmp_path / name)
    rng = np.random.default_rng(1)
    refused = 0
    for name, content in good.items():
        for _ in range(40):
            damaged = bytearray(content)
            for position in rng.integers(0, len(content), 6):
                damaged[position] = int(rng.integers(0, 256))
            path = tmp_path / name
            path.write_bytes(bytes(damaged))
            try:
                assert read_image(path).shape[2] == 3
            except ImageError:
                refused += 1
    assert refused > 20


def test_a_name_with_another_ending_is_named(tmp_path: Path) -> None:
    NOISE.save(tmp_path / "a.JPG", format="JPEG")
    assert refusal(tmp_path / "a.jpg") == "missing file (there is a.JPG)"
    assert refusal(tmp_path / "b.jpg") == "missing file"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jpg", b"\x00\x00\x00\x0cJXL " + bytes(9), "format not read: .jpg (JPEG XL)"),
        ("a.CR3", b"\0\0\0\x18ftypcrx " + bytes(9), "format not read: .CR3 (begins with"),
        ("a", b"text", "format not read: no extension (begins with b'text')"),
        ("a.jpg", b"text", "not an image of a known format (begins with b'text')"),
    ],
)
def test_formats_that_are_not_read(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert reason in refusal(tmp_path / name)


def test_a_raw_photo_is_not_its_preview(tmp_path: Path) -> None:
    """Pillow opens many of them as TIFF, with the small picture that is inside."""
    picture = Image.fromarray(RAMP.astype(np.uint8))
    picture.save(tmp_path / "a.NEF", format="TIFF")
    assert "a camera's raw photo" in refusal(tmp_path / "a.NEF")
    picture.save(tmp_path / "a.tif", tiffinfo={50706: b"\1\4\0\0"})
    assert "a camera's raw photo" in refusal(tmp_path / "a.tif")
    picture.convert("RGB").save(tmp_path / "b.dng", format="JPEG")
    assert read_image(tmp_path / "b.dng").shape[2] == 3, "the content decides"
