"""Convert any pixel format to 8-bit RGB, with notes on the conversions.

16-bit values are scaled, never clipped: the high byte stays. Transparent parts become white, as in
most viewers. CMYK is converted without a colour profile, and embedded profiles are ignored, as in
CLIP's training.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

_SIXTEEN_BIT_GREY = ("I;16", "I;16L", "I;16B", "I;16N")
_NAMES = {"1": "1-bit", "L": "grey", "LA": "grey", "La": "grey", "P": "palette", "PA": "palette"}
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")


def stored_depth(image: Image.Image) -> int:
    """Bits per channel in the file, 8 or 16; call it before the pixels are loaded."""
    if image.mode in _SIXTEEN_BIT_GREY or (image.mode == "I" and image.format == "PPM"):
        return 16
    tiles = getattr(image, "tile", [])
    return 16 if any(";16" in str(tile.args) for tile in tiles) else 8


def to_rgb(image: Image.Image, depth: int) -> tuple[Image.Image, tuple[str, ...]]:
    """Convert a loaded image to mode RGB.

    Args:
        image: with its pixels loaded.
        depth: `stored_depth` before loading.

    Returns:
        The RGB image and a note for each conversion; none for plain RGB.

    Raises:
        ValueError: the pixels are of 32 bits, without a fixed white, or Pillow cannot convert them.
    """
    notes = ["16-bit, high byte kept"] if depth == 16 else []
    if image.mode in _SIXTEEN_BIT_GREY or (image.mode == "I" and depth == 16):
        values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        grey = Image.fromarray((values >> 8).astype(np.uint8))
        if "transparency" in image.info:
            opaque = 255 * (values != image.info["transparency"]).astype(np.uint8)
            image = Image.merge("LA", (grey, Image.fromarray(opaque)))
        else:
            image = grey
    elif depth == 16 and "transparency" in image.info:  # as Pillow keeps the colours: high bytes
        image.info["transparency"] = tuple(level >> 8 for level in image.info["transparency"])
    if image.mode in ("I", "F"):
        raise ValueError(
            f"32-bit pixels (mode {image.mode}) have no fixed white; save it with 8 or 16 bits"
        )
    if image.mode == "RGB" and "transparency" not in image.info:
        return image, tuple(notes)
    if not image.mode.startswith("RGB"):
        notes.append(f"{_NAMES.get(image.mode, image.mode)} converted to RGB")
    if image.mode not in _ALPHA and "transparency" not in image.info:
        return image.convert("RGB"), tuple(notes)
    layered = image.convert("RGBA")
    if layered.getchannel("A").getextrema()[0] == 255:
        return layered.convert("RGB"), (*notes, "opaque alpha channel dropped")
    white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
    flat = Image.alpha_composite(white, layered).convert("RGB")
    return flat, (*notes, "transparent parts put on white")
