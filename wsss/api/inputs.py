"""What the public functions are given: a photo in any form, maps, settings; checked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps
from pydantic import ValidationError

from wsss.api.remedies import described, of_maps_array, of_photo, of_photo_array, of_value
from wsss.config.base import Section
from wsss.config.errors import explain_value
from wsss.data.datasets.classes import nearest
from wsss.data.errors import ImageError
from wsss.data.images.colour_modes import stored_depth, to_rgb
from wsss.data.images.read import read_image as read_file
from wsss.errors import WsssError

_ARGUMENTS = {
    "data.classes": "classes",
    "data.prompts": "prompts",
    "data.backgrounds": "backgrounds",
    "clip.model": "model",
    "clip.pretrained": "pretrained",
    "clip.long_side": "long_side",
    "compute.device": "device",
}
"""Keys of the configuration and what the public functions call them."""
_SHORT = 80
"""Longer texts are not repeated in a remedy."""
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
        return read_file(_photo_file(photo))
    if isinstance(photo, Image.Image):
        upright = ImageOps.exif_transpose(photo)
        photo = np.array(to_rgb(upright, stored_depth(photo))[0])
    if not isinstance(photo, np.ndarray):
        raise TypeError(
            f"a photo is a path, a PIL image or a numpy array, not {type(photo).__name__}"
            f"{of_photo(photo)}"
        )
    photo = np.asarray(photo)  # a masked array has methods of its own
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or not photo.size:
        raise ValueError(
            f"the photo is an array {photo.dtype} {list(photo.shape)}; expected RGB as uint8 "
            f"[height, width, 3], values 0 … 255{of_photo_array(photo)}"
        )
    return photo


def _photo_file(photo: str | os.PathLike[str]) -> Path:
    """The path of a photo, as far as it can be one.

    Raises:
        ImageError: it cannot.
    """
    text = os.fspath(photo)
    path = Path(text)
    if "://" in text:
        raise ImageError(Path(text.replace("://", ":/")), "is an address; download the photo")
    if path.is_dir():
        what = "is a folder" if text else "the path is empty"
        raise ImageError(path, f"{what}; name the file of a photo")
    return path


def check_maps(
    name: str, maps: np.ndarray, axes: str = "maps, height, width", most: float = 1.0
) -> None:
    """Refuse what are no scores.

    Args:
        name: of the argument.
        maps: what was given.
        axes: that it must have.
        most: largest value.

    Raises:
        ValueError: it is no float array of these axes, holds nothing, or a value not in 0 … most.
    """
    is_array = isinstance(maps, np.ndarray)
    fits = is_array and maps.ndim == axes.count(",") + 1 and maps.dtype.kind == "f"
    if not fits or not maps.size:
        dimensions = axes.count(",") + 1
        if is_array:
            what = f"{maps.dtype} {list(maps.shape)}{of_maps_array(maps, name, dimensions)}"
        else:
            what = f"{type(maps).__name__}{of_value(maps, name, 'float32')}"
        if hasattr(maps, "propagated"):  # what a function for CAMs returned
            what += f"; pass its .{'maps' if maps.propagated is None else 'propagated'}"
        expected = f"a numpy float array [{axes}]{' that is not empty' if fits else ''}"
        raise ValueError(f"{name}: expected {expected}, not {what}")
    if not np.isfinite(maps).all():
        wrong = "NaN" if np.isnan(maps).any() else "infinity"
        raise ValueError(f"{name}: expected finite values, found {wrong}; mend what computed it")
    if maps.min() < 0 or maps.max() > most:
        expected = f"in 0 … {most:g}" if np.isfinite(most) else "from 0 on"
        actual = f"{maps.min()} … {maps.max()}"
        raise ValueError(f"{name}: expected values {expected}, not {actual}; scale them")


def texts_of(what: str, texts: Iterable[str]) -> tuple[str, ...]:
    """The texts of a list, tuple or array.

    Args:
        what: the name of the argument.
        texts: as they were given.

    Raises:
        TypeError: it is one text, whose letters would be taken for several, has no order, or holds
            something that is no text.
    """
    listed = _listed(what, texts, "texts")
    if wrong := [text for text in listed if not isinstance(text, str)]:
        raise TypeError(f"{what}: expected a list of texts, found {described(wrong[0])} in it")
    return listed


def whole_numbers(what: str, values: Iterable[int], least: int, most: int) -> tuple[int, ...]:
    """The whole numbers of a list, tuple or array.

    Raises:
        TypeError: it is no such list.
        ValueError: it is empty, or a value is not in the range.
    """
    listed = _listed(what, values, "whole numbers")
    wrong = [value for value in listed if type(value) is not int or not least <= value <= most]
    if wrong or not listed:
        example = f"{wrong[0]!r:.100}" if wrong else "none"
        raise ValueError(f"{what}: expected whole numbers in {least} … {most}, found {example}")
    return listed


def _listed(what: str, values: Any, kind: str) -> tuple[Any, ...]:
    """The values, those of numpy as Python's."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    is_list = isinstance(values, Iterable)
    if not is_list or isinstance(values, str | bytes | set | frozenset):
        remedy = f"; write [{values!r}]" if isinstance(values, str) and len(values) < _SHORT else ""
        raise TypeError(f"{what}: expected a list of {kind}, not {described(values)}{remedy}")
    return tuple(map(_plain, values))


def options_of(name: str, options: bool | Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings that an argument switches on, off, or lists.

    Raises:
        TypeError: it does none of that.
    """
    if options is None or isinstance(options, bool | np.bool_):
        return {"enabled": bool(options)}
    return mapping_of(name, options, "True, False or settings, e.g. {'enabled': True}")


def mapping_of(
    name: str, given: Mapping[str, Any], expected: str, kind: type = object
) -> dict[str, Any]:
    """A dictionary whose keys are texts.

    Args:
        name: of the argument.
        given: what was given.
        expected: for the message.
        kind: of the values.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(given, Mapping) or not all(
        isinstance(key, str) and isinstance(value, kind) for key, value in given.items()
    ):
        raise TypeError(f"{name} is {described(given)}; expected {expected}")
    return dict(given)


def section(kind: type[S], values: Mapping[str, Any], called: Mapping[str, str] | None = None) -> S:
    """A section of settings.

    Args:
        kind: of section.
        values: by the names of its settings.
        called: what an argument is called, by the name of its setting; none: the same.

    Raises:
        ValueError: names the first setting that is unknown or out of range.
    """
    plain = {name: _plain(value) for name, value in values.items()}
    try:
        return kind.model_validate(plain)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            near = nearest(name, kind.model_fields)
            raise ValueError(f"there is no setting {name!r}{near}") from None
        name = (called or {}).get(name, name)
        raise ValueError(f"{name}: {explain_value(first, of_yaml=False)}") from None


def _plain(value: Any) -> Any:
    """Numbers of numpy and paths as a configuration has them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return os.fspath(value) if isinstance(value, os.PathLike) else value
