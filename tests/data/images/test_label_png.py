from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wsss.data.errors import ImageError
from wsss.data.images.label_png import read_label_png, save_label_png, voc_palette

from ...hostile.payloads import png

ALL = np.arange(256, dtype=np.uint8).reshape(8, 32)


def test_palette_is_vocs() -> None:
    """The colours that the VOC page names, and the one whose bits are all set."""
    palette = voc_palette()
    assert palette[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert palette[15] == (192, 128, 128)  # person
    assert palette[20] == (0, 64, 128)  # tvmonitor
    assert palette[255] == (224, 224, 192)  # void
    assert len(set(palette)) == 256


def test_all_values_survive(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a b é.png"
    save_label_png(path, ALL)
    np.testing.assert_array_equal(read_label_png(path), ALL)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    with Image.open(path) as image:
        assert image.mode == "P"
        assert image.getpalette() == [channel for colour in voc_palette() for channel in colour]
    colours = cv2.imread(str(path))[..., ::-1]  # an independent reader
    np.testing.assert_array_equal(colours, np.array(voc_palette(), np.uint8)[ALL])


def test_other_readers_see_the_same_indices(tmp_path: Path) -> None:
    """Pillow, also after it wrote the file again, and mmcv as mmsegmentation calls it."""
    save_label_png(tmp_path / "a.png", ALL)
    Image.open(tmp_path / "a.png").save(tmp_path / "b.png", optimize=True)
    for path in (tmp_path / "a.png", tmp_path / "b.png"):
        read = mmcv.imfrombytes(path.read_bytes(), flag="unchanged", backend="pillow")
        np.testing.assert_array_equal(read.squeeze(), ALL)
        np.testing.assert_array_equal(np.array(Image.open(path)), ALL)


@pytest.mark.parametrize("value", [0, 1, 2, 15, 16, 127, 128, 255])
def test_a_value_alone(tmp_path: Path, value: int) -> None:
    """An image of few colours is where encoders like to renumber or to save bits."""
    labels = np.full((3, 5), value, np.uint8)
    save_label_png(tmp_path / "a.png", labels)
    np.testing.assert_array_equal(read_label_png(tmp_path / "a.png"), labels)


@settings(max_examples=40)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**31))
def test_any_shape(tmp_path_factory: pytest.TempPathFactory, h: int, w: int, seed: int) -> None:
    path = tmp_path_factory.mktemp("labels") / "a.png"
    labels = np.random.default_rng(seed).integers(0, 256, (w, h), dtype=np.uint8).T
    save_label_png(path, labels)  # not contiguous
    np.testing.assert_array_equal(read_label_png(path), labels)


def test_grey_mask_of_indices(tmp_path: Path) -> None:
    Image.fromarray(ALL).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_label_png(tmp_path / "a.png"), ALL)


def test_palette_of_few_colours(tmp_path: Path) -> None:
    """Two bits a pixel in the file; the indices still come back."""
    image = Image.fromarray(np.array([[0, 1, 2, 3]], np.uint8))
    image.putpalette([9, 9, 9, 1, 2, 3, 7, 7, 7, 0, 0, 0])
    image.save(tmp_path / "a.png", bits=2)
    np.testing.assert_array_equal(read_label_png(tmp_path / "a.png"), [[0, 1, 2, 3]])


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_are_refused(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    save_label_png(path, ALL)
    Image.open(path).convert(mode).save(path)
    with pytest.raises(ImageError, match=rf"a\.png: holds colours \({mode}\), expected label"):
        read_label_png(path)


@pytest.mark.parametrize("depth", [1, 2, 4, 16])
def test_grey_of_other_depths_is_refused(tmp_path: Path, depth: int) -> None:
    """Pillow would scale the values of 2 and 4 bits to 0 … 255."""
    path = tmp_path / "a.png"
    path.write_bytes(png(8, 1, depth=depth, colour=0))
    with pytest.raises(ImageError, match="expected label indices: a palette PNG or 8-bit grey"):
        read_label_png(path)


def test_the_pixels_may_be_more_than_pillows_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", ALL.size // 4)
    save_label_png(tmp_path / "a.png", ALL)
    np.testing.assert_array_equal(read_label_png(tmp_path / "a.png"), ALL)
    (tmp_path / "a.png").write_bytes(png(40_000, 40_000, colour=0, rows=b""))
    with pytest.raises(ImageError, match="has 40000 x 40000 pixels, expected at most 1073741824"):
        read_label_png(tmp_path / "a.png")


def test_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(ImageError, match="no such label PNG"):
        read_label_png(path)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    save_label_png(path, noise)
    path.write_bytes(path.read_bytes()[:2500])
    with pytest.raises(ImageError, match="damaged"):
        read_label_png(path)
    Image.fromarray(ALL).save(path, format="JPEG")
    with pytest.raises(ImageError, match="no PNG"):
        read_label_png(path)
