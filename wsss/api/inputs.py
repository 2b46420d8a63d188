"""What the public functions are given: a photo in any form, maps, settings; checked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps
from pydantic import ValidationError

from wsss.config.base import Section
from wsss.data.images.colour_modes import stored_depth, to_rgb
from wsss.data.images.read import read_image as read_file
from wsss.errors import WsssError

_ARGUMENTS = {
    "data.prompts": "prompts",
    "data.backgrounds": "backgrounds",
    "clip.model": "model",
    "clip.pretrained": "pretrained",
    "clip.long_side": "long_side",
    "compute.device": "device",
}
"""Keys of the configuration and what the public functions call them."""
S = TypeVar("S", bound=Section)
Photo = str | os.PathLike[str] | Image.Image | np.ndarray
"""A path, a PIL image, or an RGB array uint8 [height, width, 3]."""


@contextmanager
def argument_names() -> Iterator[None]:
    """For public functions: their errors name arguments, not keys of the configuration."""
    try:
        yield
    except (WsssError, ValueError) as error:
        text = str(error)
        for key, argument in _ARGUMENTS.items():
            text = text.replace(key, argument)
        if text != str(error):
            error.args = (text,)
        raise


@argument_names()
def read_image(photo: Photo) -> UInt8[np.ndarray, "height width 3"]:
    """The pixels of a photo as upright RGB, 0 … 255.

    Args:
        photo: path of an image file (JPEG, PNG, WebP, TIFF … of any depth and colour mode), PIL
            image, or array uint8 [height, width, 3], which is returned as it is.

    Raises:
        ImageError: the file is missing, damaged or no image.
        TypeError: ``photo`` is none of these.
        ValueError: an array has another shape or type.
    """
    if isinstance(photo, str | os.PathLike):
        return read_file(Path(photo))
    if isinstance(photo, Image.Image):
        upright = ImageOps.exif_transpose(photo)
        return np.array(to_rgb(upright, stored_depth(photo))[0])
    if not isinstance(photo, np.ndarray):
        raise TypeError(
            f"a photo is a path, a PIL image or a numpy array, not {type(photo).__name__}"
        )
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or not photo.size:
        raise ValueError(
            f"the photo is an array {photo.dtype} {list(photo.shape)}; expected RGB as uint8 "
            "[height, width, 3], values 0 … 255"
        )
    return photo


def check_maps(name: str, maps: np.ndarray) -> None:
    """Refuse what is no stack of scores.

    Raises:
        ValueError: it is no float array [maps, height, width] of values in 0 … 1.
    """
    if not isinstance(maps, np.ndarray) or maps.ndim != 3 or maps.dtype.kind != "f":
        is_array = isinstance(maps, np.ndarray)
        what = f"{maps.dtype} {list(maps.shape)}" if is_array else type(maps).__name__
        raise ValueError(f"{name}: expected a numpy float array [maps, height, width], not {what}")
    if maps.size and not (maps.min() >= 0 and maps.max() <= 1):  # also for NaN
        raise ValueError(f"{name}: expected values in 0 … 1, not {maps.min()} … {maps.max()}")


def check_names(what: str, names: Iterable[str]) -> None:
    """Refuse a text in place of a list of texts, whose letters would be taken for names.

    Raises:
        TypeError: ``names`` is a text, or holds something that is none.
    """
    if isinstance(names, str):
        raise TypeError(f"{what} are a list of names, not the text {names!r}")
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise TypeError(f"{what} are a list of names; {wrong[0]!r} is none")


def section(kind: type[S], /, **values: Any) -> S:
    """A section of settings.

    Raises:
        ValueError: names the first setting that is unknown or out of range.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise ValueError(f"there is no setting {name!r}") from None
        raise ValueError(f"{name}: {first['msg']}; it is {first['input']!r}") from None
