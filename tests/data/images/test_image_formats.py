"""Each hostile or unusual file is either read as RGB or refused with a reason."""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss.data.errors import ImageError
from wsss.data.images.read import inspect_image, read_image

RAMP = np.tile(np.arange(256, dtype=np.uint8), (4, 1))


def png(
    path: Path, width: int, height: int, depth: int, colour: int, rows: bytes = b"", **chunks: bytes
) -> Path:
    """Write a PNG chunk by chunk, as Pillow cannot write every kind."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    extra = b"".join(chunk(name.encode(), data) for name, data in chunks.items())
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + body)
    return path


def refusal(path: Path, **options: int) -> str:
    """The reason; both doors must give the same."""
    with pytest.raises(ImageError) as looked:
        inspect_image(path, **options)
    with pytest.raises(ImageError) as read:
        read_image(path, **options)
    assert read.value.reason == looked.value.reason
    assert str(read.value) == f"{path}: {read.value.reason}"
    return read.value.reason


def test_plain_photo_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(RAMP).convert("RGB").save(path, quality=95)
    array = read_image(path)
    assert array.dtype == np.uint8
    assert array.flags.c_contiguous
    assert array.flags.writeable
    np.testing.assert_array_equal(array, np.asarray(Image.open(path)))
    facts = inspect_image(path)
    assert (facts.width, facts.height, facts.notes) == (256, 4, ())


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
def test_truncated_jpeg(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "a.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, quality=95)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    assert "cannot be decoded" in refusal(path)


def test_truncated_png(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:6000])
    assert "cannot be decoded" in refusal(path)


def test_zero_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.touch()
    assert refusal(path) == "empty file (zero bytes)"


def test_text_named_jpg(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_text("hello, I am no picture")
    assert refusal(path).startswith("not an image of a known format (begins with b'hello")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.jpg") == "missing file"
    assert refusal(tmp_path).startswith("is no file but a folder, pipe")


def test_heic_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "a.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 64)
    assert "convert it to JPEG" in refusal(path)


def test_formats_that_start_other_programs_are_not_tried(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(RAMP).convert("RGB").save(path, format="EPS")
    assert "not an image of a known format" in refusal(path)


def test_png_named_jpg_is_used(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(RAMP).convert("RGB").save(path, format="PNG")
    assert inspect_image(path).notes == ("extension .jpg, content PNG",)
    np.testing.assert_array_equal(read_image(path)[..., 1], RAMP)


def test_over_the_cap_is_told_from_the_header(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(RAMP).save(path)
    assert inspect_image(path, max_pixels=1024).width == 256
    assert refusal(path, max_pixels=1023) == "256 x 4 = 1024 pixels, over data.max_pixels = 1023"


@pytest.mark.parametrize("side", [11_000, 60_000])  # Pillow warns at the one, raises at the other
def test_header_bomb_is_never_decoded(tmp_path: Path, side: int) -> None:
    path = png(tmp_path / "bomb.png", side, side, 8, 2)  # no pixel data: decoding would fail
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert f"{side} x {side}" in refusal(path)


def test_a_raised_cap_lifts_pillows_limit_too_and_restores_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # it would refuse from 200 on
    path = tmp_path / "a.png"
    Image.fromarray(RAMP).save(path)
    found: list[tuple[int, ...]] = []
    threads = [
        threading.Thread(target=lambda: found.append(read_image(path, max_pixels=2000).shape))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [(4, 256, 3)] * 8
    assert Image.MAX_IMAGE_PIXELS == 100


def test_cmyk_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red.save(path, quality=95)
    assert inspect_image(path).notes == ("CMYK converted to RGB",)
    np.testing.assert_allclose(read_image(path)[8, 8], (255, 0, 0), atol=6)


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


def test_16_bit_grey_png_is_scaled_not_clipped(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    values = (RAMP.astype(np.uint16) << 8) + 255 - RAMP
    Image.fromarray(values).save(path)
    assert inspect_image(path).notes == ("16-bit, high byte kept", "grey converted to RGB")
    for channel in range(3):
        np.testing.assert_array_equal(read_image(path)[..., channel], RAMP)


@pytest.mark.parametrize("format_", ["TIFF", "PPM"])
def test_16_bit_grey_of_other_formats(tmp_path: Path, format_: str) -> None:
    path = tmp_path / {"TIFF": "a.tif", "PPM": "a.pgm"}[format_]
    Image.fromarray(RAMP.astype(np.uint16) << 8).save(path, format=format_)
    np.testing.assert_array_equal(read_image(path)[..., 0], RAMP)
    assert inspect_image(path).notes[0] == "16-bit, high byte kept"


def test_16_bit_colour_png(tmp_path: Path) -> None:
    values = np.zeros((2, 3, 3), ">u2")
    values[..., 0], values[..., 1], values[0, :, 2] = 0xFF00, 0x7FFF, 0x0102
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    path = png(tmp_path / "a.png", 3, 2, 16, 2, rows)
    np.testing.assert_array_equal(read_image(path), (values >> 8).astype(np.uint8))
    assert inspect_image(path).notes == ("16-bit, high byte kept",)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_pixels_without_fixed_white_are_refused(tmp_path: Path, kind: type) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(RAMP.astype(kind)).save(path)
    assert "no fixed white" in refusal(path)


def test_grey_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(RAMP).save(path, quality=95)
    array = read_image(path)
    assert array.shape == (4, 256, 3)
    np.testing.assert_array_equal(array[..., 0], array[..., 2])
    assert inspect_image(path).notes == ("grey converted to RGB",)


def test_1_bit_png(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(RAMP > 99).save(path)
    np.testing.assert_array_equal(read_image(path)[..., 0], np.where(RAMP > 99, 255, 0))
    assert inspect_image(path).notes == ("1-bit converted to RGB",)


def test_alpha_shows_white(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    layered = np.zeros((2, 3, 4), np.uint8)
    layered[..., 0] = 200
    layered[:, :, 3] = [0, 51, 255]
    Image.fromarray(layered).save(path)
    expected = [[255, 255, 255], [244, 204, 204], [200, 0, 0]]
    np.testing.assert_allclose(read_image(path)[1], expected, atol=1)
    assert inspect_image(path).notes == ("transparent parts put on white",)


def test_opaque_alpha_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.dstack([RAMP] * 3 + [np.full_like(RAMP, 255)])).save(path)
    np.testing.assert_array_equal(read_image(path)[..., 1], RAMP)
    assert inspect_image(path).notes == ("opaque alpha channel dropped",)


def test_grey_with_alpha(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    alpha = np.full_like(RAMP, 255)
    alpha[0] = 0
    Image.fromarray(np.dstack([RAMP, alpha])).save(path)
    array = read_image(path)
    assert (array[0] == 255).all()
    np.testing.assert_array_equal(array[1, :, 2], RAMP[1])


def test_palette_png_with_transparency(tmp_path: Path) -> None:
    colours = bytes([255, 0, 0, 0, 255, 0, 0, 0, 255])
    rows = b"\0" + bytes([0, 1, 2])
    path = png(tmp_path / "a.png", 3, 1, 8, 3, rows, PLTE=colours, tRNS=bytes([255, 0]))
    expected = [[255, 0, 0], [255, 255, 255], [0, 0, 255]]
    np.testing.assert_array_equal(read_image(path)[0], expected)
    notes = inspect_image(path).notes
    assert notes == ("palette converted to RGB", "transparent parts put on white")


def test_palette_png_without_transparency(tmp_path: Path) -> None:
    colours = bytes([255, 0, 0, 0, 255, 0, 0, 0, 255])
    path = png(tmp_path / "a.png", 3, 1, 8, 3, b"\0" + bytes([2, 1, 0]), PLTE=colours)
    np.testing.assert_array_equal(read_image(path)[0], [[0, 0, 255], [0, 255, 0], [255, 0, 0]])


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
