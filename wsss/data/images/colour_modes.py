"""Any pixel format to 8-bit RGB, and what was done, in words.

Choices: 16-bit values are scaled by keeping the high byte (never clipped); what is transparent
shows white, as in most viewers; CMYK is converted without a colour profile; embedded profiles are
ignored, as CLIP's own training did.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

_SIXTEEN_BIT_GREY = ("I;16", "I;16L", "I;16B", "I;16N")
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")


def stored_depth(image: Image.Image) -> int:
    """Bits a channel in the file, 8 or 16; must be asked before the pixels are loaded."""
    if image.mode in _SIXTEEN_BIT_GREY or (image.mode == "I" and image.format == "PPM"):
        return 16
    tiles = getattr(image, "tile", [])
    return 16 if any(";16" in str(tile.args) for tile in tiles) else 8


def to_rgb(image: Image.Image, depth: int) -> tuple[Image.Image, tuple[str, ...]]:
    """Convert a loaded image to mode RGB.

    Args:
        image: loaded.
        depth: what `stored_depth` said before loading.

    Returns:
        The RGB image and a note for each conversion; none for plain RGB.

    Raises:
        ValueError: pixels without a fixed white (32-bit), or a mode Pillow cannot convert.
    """
    notes = ["16-bit, high byte kept"] if depth == 16 else []
    if image.mode in _SIXTEEN_BIT_GREY or (image.mode == "I" and depth == 16):
        values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        image = Image.fromarray((values >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(
            f"32-bit pixels (mode {image.mode}) have no fixed white; save it with 8 or 16 bits"
        )
    if image.mode == "RGB" and "transparency" not in image.info:
        return image, tuple(notes)
    notes.append(_name(image.mode))
    if image.mode in _ALPHA or "transparency" in image.info:
        return _over_white(image, notes)
    return image.convert("RGB"), tuple(note for note in notes if note)


def _over_white(image: Image.Image, notes: list[str]) -> tuple[Image.Image, tuple[str, ...]]:
    layered = image.convert("RGBA")
    lowest = layered.getchannel("A").getextrema()[0]
    if lowest == 255:
        notes.append("opaque alpha channel dropped")
        flat = layered.convert("RGB")
    else:
        notes.append("transparent parts put on white")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        flat = Image.alpha_composite(white, layered).convert("RGB")
    return flat, tuple(note for note in notes if note)


def _name(mode: str) -> str:
    names = {"1": "1-bit", "L": "grey", "LA": "grey", "La": "grey", "P": "palette", "PA": "palette"}
    return names.get(mode, "" if mode.startswith("RGB") else mode) + (
        " converted to RGB" if not mode.startswith("RGB") else ""
    )
