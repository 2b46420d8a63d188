"""The pictures of a result page: each layer of each image, as WebP."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from wsss.artifacts.shard import Shard
from wsss.data.images.read import read_image
from wsss.data.manifest import Sample
from wsss.labels.upsample import upsample
from wsss.score.figures.overlay import paint_heat, paint_labels, scaled
from wsss.score.truth.find import read_truth
from wsss.score.truth.sources import Source

LONG_SIDE = 320
"""Pixels of every picture."""
_QUALITY = 82  # of WebP
PHOTO, TRUTH = "image", "truth"


@dataclass(frozen=True)
class Layer:
    """A product that pictures show."""

    key: str
    """In file names: letters and underscores."""
    title: str
    kind: str
    """Of its shards."""
    arrays: tuple[str, ...]
    """The first that an item has is shown."""
    heat: bool = False
    """Class scores on the grid, not labels."""
    hatched: bool = False
    """255 is hatched as ignored in training, and not painted as void."""


@dataclass(frozen=True)
class PictureTask:
    """The pictures of one image."""

    sample: Sample
    layers: tuple[tuple[str, Layer, Path], ...]
    """Each with its key, and the shard that holds the image."""
    truth: Source | None
    palette: UInt8[np.ndarray, "256 3"]
    max_pixels: int


def draw(task: PictureTask) -> Mapping[str, bytes]:
    """Draw the layers of one image.

    Returns:
        WebP files by layer; the photo first, the truth last if there is any.
    """
    sample = task.sample
    photo = read_image(sample.path, digest=sample.digest, max_pixels=task.max_pixels)
    photo = scaled(photo, LONG_SIDE)
    pictures = {PHOTO: photo}
    for key, layer, path in task.layers:
        item = _open(path, layer.kind).read(sample.id)
        array = item.arrays[next(name for name in layer.arrays if name in item.arrays)]
        if layer.heat:
            maps = upsample(array.astype(np.float32), photo.shape[:2])
            pictures[key] = paint_heat(photo, maps, item.attrs["classes"], task.palette)
        else:
            labels = scaled(array, LONG_SIDE)
            pictures[key] = paint_labels(photo, labels, task.palette, hatch_ignore=layer.hatched)
    if task.truth is not None:
        truth = read_truth(task.truth, sample.id, sample.height, sample.width)
        labels = scaled(truth, LONG_SIDE)
        pictures[TRUTH] = paint_labels(photo, labels, task.palette)
    return {key: _webp(picture) for key, picture in pictures.items()}


@functools.lru_cache(maxsize=16)
def _open(path: Path, kind: str) -> Shard:
    return Shard(path, kind=kind)


def _webp(picture: UInt8[np.ndarray, "h w 3"]) -> bytes:
    _, encoded = cv2.imencode(
        ".webp", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, _QUALITY]
    )
    return encoded.tobytes()
