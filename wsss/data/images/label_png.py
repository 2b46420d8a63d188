"""Index PNGs: label maps whose values are indices into VOC's palette.

Pillow has three traps here. A P-mode image saved without a palette may come back with other
indices; ``convert("L")`` on a palette PNG gives luminance instead of indices; grey PNGs of fewer
than 8 bits are scaled to 0 … 255 when read. All label PNGs are read and written here.
"""

from __future__ import annotations

import functools
import io
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from wsss.artifacts.atomic import write_one_of_many
from wsss.config.safe_yaml import read_bytes
from wsss.data.errors import ImageError
from wsss.data.images.read import open_header
from wsss.errors import raise_unless_about

_RESTORE = "write it again, or restore it from its source"
_MAX_BYTES = 2**29
_MOST_PIXELS = 2**30  # a byte each; data.max_pixels may be set above Pillow's own limit
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@functools.cache
def voc_palette() -> tuple[tuple[int, int, int], ...]:
    """VOC's 256 colours (R, G, B), each 0 … 255.

    The bits of an index, lowest first, go to red, green, blue in turn; each colour is filled from
    its highest bit down (the rule of the VOC development kit).
    """
    colours = []
    for index in range(256):
        channels = [0, 0, 0]
        for bit in range(8):
            channels[bit % 3] |= ((index >> bit) & 1) << (7 - bit // 3)
        colours.append((channels[0], channels[1], channels[2]))
    return tuple(colours)


def save_label_png(
    path: Path, labels: UInt8[np.ndarray, "height width"], palette: Sequence[Sequence[int]] = ()
) -> None:
    """Write labels as a palette PNG; replaces the file in one step and creates its folder.

    Args:
        path: the PNG.
        labels: values 0 … 255, stored exactly.
        palette: see `label_png_bytes`.

    Raises:
        WriteError: there is no space or no right to write.
    """
    write_one_of_many(path, label_png_bytes(labels, palette))


def label_png_bytes(
    labels: UInt8[np.ndarray, "height width"], palette: Sequence[Sequence[int]] = ()
) -> bytes:
    """The bytes that `save_label_png` writes; equal labels give equal bytes.

    Args:
        labels: values 0 … 255.
        palette: R, G, B of each value, by default VOC's.
    """
    image = Image.frombytes("P", labels.shape[::-1], np.ascontiguousarray(labels).tobytes())
    image.putpalette([channel for colour in palette or voc_palette() for channel in colour])
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def read_label_png(path: Path) -> UInt8[np.ndarray, "height width"]:
    """Read the indices of a palette PNG, or the values of an 8-bit grey one.

    Raises:
        ImageError: the file is missing, damaged or no PNG, or its values are no indices (colours,
            16 bits, grey of fewer than 8 bits).
        ReadError: it cannot be read at present.
    """
    try:
        content = read_bytes(path, _MAX_BYTES)
        _check_chunks(path, content)
        with open_header(io.BytesIO(content), ["PNG"]) as image:
            if image.width * image.height > _MOST_PIXELS:
                size = f"{image.width} x {image.height}"
                raise ImageError(path, f"has {size} pixels, expected at most {_MOST_PIXELS}")
            stored = str(image.tile[0].args) if image.tile else ""
            if image.mode == "RGB" or image.mode == "RGBA":
                raise ImageError(
                    path,
                    f"holds colours ({image.mode}), expected label indices; save the mask as a "
                    "palette (mode P) or 8-bit grey PNG whose values are 0 … 255",
                )
            if image.mode != "P" and (image.mode != "L" or stored != "L"):
                raise ImageError(
                    path,
                    f"is a PNG of mode {image.mode} (stored as {stored}), expected label indices: "
                    "a palette PNG or 8-bit grey",
                )
            image.load()
            return np.array(image)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(path, "no such label PNG") from None
    except (OSError, SyntaxError, ValueError, MemoryError) as error:
        raise_unless_about(path, error)
        raise ImageError(path, f"is damaged or no PNG ({error}); {_RESTORE}") from None


def _check_chunks(path: Path, content: bytes) -> None:
    """Compare each chunk with its checksum; Pillow does not do so for the pixels."""
    start = len(_SIGNATURE)
    if not content.startswith(_SIGNATURE):
        raise ImageError(path, f"is damaged or no PNG: it does not begin as one; {_RESTORE}")
    view = memoryview(content)
    while start < len(content):
        end = start + 8 + int.from_bytes(view[start : start + 4], "big")
        if end + 4 > len(content):
            raise ImageError(path, f"is damaged: it ends within a chunk; {_RESTORE}")
        name = bytes(view[start + 4 : start + 8]).decode("latin-1")
        if zlib.crc32(view[start + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise ImageError(
                path, f"is damaged: its chunk {name!r} does not match its checksum; {_RESTORE}"
            )
        if name == "IEND":
            return
        start = end + 4
    raise ImageError(path, f"is damaged: it has no end; {_RESTORE}")
