"""How a value of another form becomes the one that is expected: the last part of a message."""

from __future__ import annotations

from typing import Any

import numpy as np


def described(value: object) -> str:
    """A value in one short line; of an array its type and shape."""
    if isinstance(value, np.ndarray):
        return f"an array {value.dtype} {list(value.shape)}"
    if _is_tensor(value):
        return f"a {type(value).__name__}"
    text = " ".join(repr(value).split())
    return f"{text:.100}"


def of_value(value: object, name: str, dtype: str) -> str:
    """What makes an array of a value that is none; empty where nothing does.

    Args:
        name: of the argument.
        dtype: of the array.
    """
    if _is_tensor(value):
        return f"; pass {name}.detach().cpu().numpy()"
    if isinstance(value, list | tuple):
        return f"; pass numpy.array({name}, numpy.{dtype})"
    return ""


def of_photo(photo: object) -> str:
    """What makes a photo of a value that is none."""
    if isinstance(photo, bytes | bytearray):
        return "; of the bytes of a file it is PIL.Image.open(io.BytesIO(photo))"
    if hasattr(photo, "read"):
        return "; of an open file it is PIL.Image.open(photo)"
    return of_value(photo, "photo", "uint8")


def of_photo_array(photo: np.ndarray) -> str:
    """What makes a photo of an array in another form."""
    if photo.ndim == 4 and len(photo) == 1:
        return "; of a batch of one it is photo[0]"
    if photo.size and photo.dtype.kind in "iuf" and photo.dtype != np.uint8:
        return _as_bytes(photo)
    if photo.ndim == 3 and photo.shape[0] == 3:
        return "; of [3, height, width] it is photo.transpose(1, 2, 0)"
    if photo.dtype == np.uint8 and (photo.ndim == 2 or photo.shape[2:] in {(2,), (4,)}):
        return "; pass PIL.Image.fromarray(photo)"
    if photo.dtype == np.uint8 and photo.shape[2:] == (1,):
        return "; of one channel it is PIL.Image.fromarray(photo[..., 0])"
    return ""


def of_maps_array(maps: np.ndarray, name: str, dimensions: int) -> str:
    """What makes scores of an array in another form.

    Args:
        name: of the argument.
        dimensions: that it must have.
    """
    if maps.ndim == dimensions - 1:
        return f"; of one map it is {name}[None]"
    if maps.ndim == dimensions + 1 and len(maps) == 1:
        return f"; of a batch of one it is {name}[0]"
    if maps.ndim == dimensions and maps.dtype.kind in "biu":
        largest = np.iinfo(maps.dtype).max if maps.dtype == np.uint8 and maps.max() > 1 else 1
        return f"; pass {name}.astype(numpy.float32)" + f" / {largest}" * (largest > 1)
    return ""


def _as_bytes(photo: np.ndarray) -> str:
    low, high = photo.min(), photo.max()
    if photo.dtype.kind == "f" and not high > 1:
        return "; of values in 0 … 1 it is (255 * photo).round().astype(numpy.uint8)"
    if low >= 0 and high <= 255:
        rounded = ".round()" * (photo.dtype.kind == "f")
        return f"; of values in 0 … 255 it is photo{rounded}.astype(numpy.uint8)"
    if photo.dtype == np.uint16:
        return "; of 16 bits it is (photo / 257).round().astype(numpy.uint8)"
    return f"; its values are {low} … {high}, scale them"


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "detach") and hasattr(value, "numpy")
