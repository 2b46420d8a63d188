"""Photos: checked from the header, decoded in full, turned upright, converted to 8-bit RGB.

The package reads all photos here. The content decides the format, never the extension, and only
formats that Pillow decodes itself are tried (none that starts another program, as EPS does). Ingest
does not notice damage that the decoder does not report, such as wrong bytes inside a JPEG's data.
Later stages compare the digest of the bytes that they decode with the one of ingest.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from wsss.config.data import DataConfig
from wsss.data.errors import ImageError
from wsss.data.images.colour_modes import stored_depth, to_rgb
from wsss.errors import raise_unless_about

DEFAULT_MAX_PIXELS: Final[int] = DataConfig().max_pixels
_EXTENSIONS: Final = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"), "MPO": (".jpg", ".jpeg", ".mpo"),
    "PNG": (".png", ".apng"), "WEBP": (".webp",), "GIF": (".gif",), "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"), "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2", ".j2k", ".jpx", ".jpf"), "AVIF": (".avif",),
}  # fmt: skip
PHOTO_EXTENSIONS: Final = frozenset(e for group in _EXTENSIONS.values() for e in group) | {
    ".heic", ".heif",
}  # fmt: skip
"""Lower-case extensions of photos in a folder; HEIC cannot be decoded, and is among them so that it
is reported as unusable instead of being ignored."""
_RAW: Final = frozenset({
    ".3fr", ".arw", ".cr2", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef",
    ".nrw", ".pef", ".raw", ".rw2", ".sr2", ".srw",
})  # fmt: skip
"""Camera formats that are TIFFs with a small preview, which would be read in place of the photo."""
_DNG_VERSION: Final = 50706  # tag of a TIFF
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MOST_BYTES: Final = 2**31  # a file is read into memory before it is decoded
_QUARTER_TURNS: Final = frozenset({5, 6, 7, 8})
Image.init()  # registers all formats; only those above are ever tried
_FORMATS: Final = [name for name in _EXTENSIONS if name in Image.OPEN]  # MPO opens as JPEG
_opening = threading.Lock()
_EMPTY_EXIF: Final = 14  # bytes of a header and a table without entries
# Damaged metadata, of a photo that Pillow does not name; what is lost by it is a note of the photo.
warnings.filterwarnings(
    "ignore", category=UserWarning, module=r"PIL\.(Tiff|Jpeg|Png|Mpo)ImagePlugin$"
)


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """The size of a photo and its peculiarities, or why it cannot be used."""

    width: int = 0
    """Pixels, upright."""
    height: int = 0
    notes: tuple[str, ...] = ()
    """Conversions and peculiarities in words; empty for a plain 8-bit RGB photo."""
    digest: str = ""
    """sha256 of the file's bytes."""
    error: str | None = None
    """Why the file cannot be used; the other fields are then empty."""


def read_image(
    path: Path, *, digest: str | None = None, max_pixels: int | None = None
) -> UInt8[np.ndarray, "height width 3"]:
    """Read a photo as upright 8-bit RGB, contiguous and writable.

    Args:
        path: the file; its extension does not matter.
        digest: sha256 of the file's bytes at ingest (`Sample.digest`); None for a file that no
            manifest lists.
        max_pixels: larger images are refused from their header; None for the default of
            ``data.max_pixels``, where there is no configuration.

    Raises:
        ImageError: the file is missing, empty, no image, truncated or too large, its pixels have no
            fixed range, or it has changed since ingest.
        ReadError: it cannot be read at present, or there is not enough memory.
    """
    image, _ = _decode(path, read_bytes(path, digest=digest), max_pixels)
    return np.array(image)


def read_bytes(path: Path, *, digest: str | None = None) -> bytes:
    """All bytes of a photo's file, so that what is decoded or copied is what has the digest.

    Raises:
        ImageError: the file is missing, empty, or has changed since ingest.
        ReadError: it cannot be read at present, or there is not enough memory.
    """
    content = _read(path)
    if digest is not None and hashlib.sha256(content).hexdigest() != digest:
        raise ImageError(path, "has changed since ingest; run ingest again, then this stage")
    return content


def is_turned(path: Path) -> bool:
    """Whether a photo's EXIF data says that its pixels are stored turned or mirrored.

    Raises:
        ImageError: the file is missing, empty, or no image.
        ReadError: it cannot be read at present.
    """
    _check_file(path)
    with _opened(path, path, "its header cannot be read") as image:
        return _orientation(image, []) in _UPRIGHT


def inspect_image(path: Path, *, max_pixels: int | None = None) -> ImageFacts:
    """Decode a photo in full, as `read_image` does, and describe it.

    Raises:
        ImageError: as `read_image`.
    """
    content = _read(path)
    image, notes = _decode(path, content, max_pixels)
    return ImageFacts(image.width, image.height, notes, hashlib.sha256(content).hexdigest())


def image_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels, upright, from the file's header; nothing is decoded.

    Raises:
        ImageError: the file is missing, empty, or no image.
        ReadError: it cannot be read at present.
    """
    _check_file(path)
    with _opened(path, path, "its header cannot be read") as image:
        swapped = _orientation(image, []) in _QUARTER_TURNS and image.format != "TIFF"
        return (image.height, image.width) if swapped else (image.width, image.height)


def _read(path: Path) -> bytes:
    _check_file(path)
    try:
        return path.read_bytes()
    except (OSError, MemoryError) as error:
        raise_unless_about(path, error)
        raise ImageError(path, f"cannot be read: {_one_line(error)}") from None


def _decode(
    path: Path, content: bytes, max_pixels: int | None
) -> tuple[Image.Image, tuple[str, ...]]:
    """The upright RGB image and the notes."""
    with _opened(path, io.BytesIO(content), "cannot be decoded") as image:
        limit = DEFAULT_MAX_PIXELS if max_pixels is None else max_pixels
        if image.width * image.height > limit:
            raise ImageError(path, over_limit(image.width, image.height, max_pixels))
        notes = _oddities(path, image)
        depth = stored_depth(image)
        orientation = _orientation(image, notes) if image.format == "TIFF" else None
        image.load()
        upright: Image.Image = image
        if orientation is None:  # Pillow turns TIFFs itself while loading
            orientation = _orientation(image, notes)
            if orientation in _UPRIGHT:
                upright = image.transpose(_UPRIGHT[orientation])
        if orientation in _UPRIGHT:
            notes.append(f"turned upright (EXIF orientation {orientation})")
        rgb, conversions = to_rgb(upright, depth)
        return rgb, (*notes, *conversions)


@contextmanager
def _opened(path: Path, source: Path | io.BytesIO, failure: str) -> Iterator[Image.Image]:
    """An image of which only the header was read.

    A failure becomes an `ImageError`, or a `ReadError` where the file is not to blame.
    """
    try:
        with open_header(source, _FORMATS) as image:
            if image.format == "TIFF" and _is_raw(path, image):
                raise ImageError(path, _not_read(path, "a camera's raw photo"))
            yield image
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(path, _not_an_image(path)) from None
    except Exception as error:  # decoders raise anything from struct.error to SyntaxError
        raise_unless_about(path, error)
        raise ImageError(path, f"{failure}: {_one_line(error)}") from None


def over_limit(width: int, height: int, max_pixels: int | None) -> str:
    """The reason for refusing an image of this size; without a configuration nothing can be set."""
    what = f"too large: {width} x {height} = {width * height} pixels, over"
    if max_pixels is None:
        return f"{what} the limit of {DEFAULT_MAX_PIXELS}; scale the photo down"
    return f"{what} data.max_pixels = {max_pixels}; raise it, or scale the photo down"


def _check_file(path: Path) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise ImageError(path, f"missing file{_other_ending(path)}") from None
    except (OSError, ValueError) as error:
        raise_unless_about(path, error)
        raise ImageError(path, f"cannot be read: {_one_line(error)}") from None
    if not path.is_file():
        raise ImageError(path, "is no file but a folder, pipe, socket or device; remove it")
    if size == 0:
        raise ImageError(path, "empty file (zero bytes)")
    if size > _MOST_BYTES:
        raise ImageError(path, f"has {size} bytes, more than any photo; at most {_MOST_BYTES} do")


def open_header(source: Path | io.BytesIO, formats: list[str]) -> ImageFile.ImageFile:
    """Open an image without Pillow's own limit of pixels; the caller checks one before decoding.

    Args:
        source: the file.
        formats: Pillow's names of those that it may have.
    """
    with _opening:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(source, formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _oddities(path: Path, image: Image.Image) -> list[str]:
    notes = []
    name = str(image.format)
    if path.suffix.lower() not in _EXTENSIONS[name]:
        notes.append(f"extension {path.suffix or 'missing'}, content {name}")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and name != "MPO":  # an MPO's further frames are previews of the same photo
        notes.append(f"first of {frames} frames used")
    return notes


def _orientation(image: Image.Image, notes: list[str]) -> int:
    """The EXIF orientation; 1 where there is none. It adds a note of EXIF that cannot be read."""
    try:
        exif = image.getexif()
        orientation = int(exif.get(ExifTags.Base.Orientation, 1))
        content = image.info.get("exif", b"").removeprefix(b"Exif\0\0")
        is_broken = not exif and len(content) > _EMPTY_EXIF
    except Exception:  # broken EXIF raises anything; the pixels are fine without it
        orientation, is_broken = 1, True
    if is_broken:
        notes.append("broken EXIF ignored")
    return orientation


def _other_ending(path: Path) -> str:
    """A hint at a file whose name differs in the ending alone, or in its case."""
    endings = ("", ".jpg", ".JPG", ".jpeg", ".JPEG", ".png", ".PNG", ".webp", ".tif", ".bmp")
    near = next(filter(os.path.isfile, map(path.with_suffix, endings)), None) if path.name else None
    return f" (there is {near.name})" if near else ""


def _is_raw(path: Path, image: Image.Image) -> bool:
    return path.suffix.lower() in _RAW or _DNG_VERSION in getattr(image, "tag_v2", ())


def _not_an_image(path: Path) -> str:
    with path.open("rb") as stream:
        head = stream.read(12)
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"mif1", b"msf1"):
        return _not_read(path, "HEIC photo")
    if head.startswith((b"\xff\x0a", b"\x00\x00\x00\x0cJXL ")):
        return _not_read(path, "JPEG XL")
    if path.suffix.lower() not in PHOTO_EXTENSIONS:
        return _not_read(path, f"begins with {head!r}")
    return f"not an image of a known format (begins with {head!r})"


def _not_read(path: Path, kind: str) -> str:
    return f"format not read: {path.suffix or 'no extension'} ({kind}); convert it to JPEG or PNG"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
