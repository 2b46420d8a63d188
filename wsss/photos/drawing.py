"""The files of one photo: its mask, the mask over the photo, and two thumbnails."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from wsss.artifacts.atomic import write_one_of_many
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.shard import Shard
from wsss.data.images.label_png import label_png_bytes
from wsss.data.images.read import read_image
from wsss.data.manifest import Sample
from wsss.labels.ignore import IGNORED
from wsss.masks.store import png_path
from wsss.score.figures.overlay import paint_labels, scaled

_OVERLAY_SIDE, _THUMBNAIL_SIDE, _GRID_SIDE = 1024, 640, 48
"""Longer sides, pixels, at most."""
_JPEG_QUALITY, _WEBP_QUALITY = 88, 75
_Picture = UInt8[np.ndarray, "height width 3"]
_Labels = UInt8[np.ndarray, "height width"]


@dataclass(frozen=True)
class PhotoFiles:
    """Where the files of a photo are, below the folder of results."""

    mask: str
    overlay: str
    thumbnail: str
    """Of the photo."""
    mask_thumbnail: str
    """Of the mask; transparent where it is background."""

    @staticmethod
    def of(image: str) -> PhotoFiles:
        """The files of an id.

        Raises:
            ArtifactError: it leads out of the folder.
        """
        png_path(Path(), image)
        return PhotoFiles(
            mask=f"masks/{image}.png",
            overlay=f"overlays/{image}.jpg",
            thumbnail=f"thumbnails/{image}.webp",
            mask_thumbnail=f"thumbnails/{image}.png",
        )

    def paths(self) -> tuple[str, str, str, str]:
        """All of them."""
        return self.mask, self.overlay, self.thumbnail, self.mask_thumbnail


@dataclass(frozen=True)
class Drawn:
    """What was drawn of a photo."""

    shares: dict[int, float]
    """Share of the pixels of each label that occurs."""
    grid: tuple[int, int]
    """Columns and rows of `runs`."""
    runs: list[int]
    """The labels on a coarse grid, row by row: label and count of each run."""
    files: dict[str, int]
    """Bytes of each file, by its path below the folder."""


@dataclass(frozen=True)
class DrawingTask:
    """A photo with its mask in a shard."""

    sample: Sample
    shard: Path
    lookup: UInt8[np.ndarray, " 256"]
    """The label of the folder of results for each label of the shard."""


def draw_task(
    task: DrawingTask, *, folder: Path, palette: UInt8[np.ndarray, "256 3"], max_pixels: int
) -> tuple[Drawn, float]:
    """Draw a photo of a run; also gives the share of its pixels whose label is unsure.

    Args:
        max_pixels: largest photo that is read.

    Raises:
        ImageError: the photo cannot be read, or has changed since ingest.
        ArtifactError: the mask is of another size.
    """
    sample = task.sample
    photo = read_image(sample.path, digest=sample.digest, max_pixels=max_pixels)
    arrays = _open(task.shard).read(sample.id).arrays
    if arrays["label"].shape != photo.shape[:2]:
        raise ArtifactError(
            f"{task.shard}: the mask of {sample.id!r} has {arrays['label'].shape} pixels, the "
            f"photo {photo.shape[:2]}; make the masks again"
        )
    drawn = draw(sample.id, photo, task.lookup[arrays["label"]], folder, palette)
    return drawn, float(np.mean(arrays["train"] == IGNORED))


def draw(
    image: str,
    photo: _Picture,
    labels: _Labels,
    folder: Path,
    palette: UInt8[np.ndarray, "256 3"],
) -> Drawn:
    """Write the files of a photo.

    Args:
        image: the id, which names the files.
        photo: RGB.
        palette: RGB of each label.
    """
    colours = tuple(map(tuple, palette.tolist()))
    large = _at_most(_OVERLAY_SIDE, photo)
    small = _at_most(_THUMBNAIL_SIDE, photo)
    overlay = paint_labels(large, _at_most(_OVERLAY_SIDE, labels), palette)
    files = PhotoFiles.of(image)
    contents = {
        files.mask: label_png_bytes(labels, colours),
        files.overlay: _encoded(".jpg", overlay, cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY),
        files.thumbnail: _encoded(".webp", small, cv2.IMWRITE_WEBP_QUALITY, _WEBP_QUALITY),
        files.mask_thumbnail: _transparent_png(_at_most(_THUMBNAIL_SIDE, labels), palette),
    }
    for path, content in contents.items():
        write_one_of_many(folder / path, content)
    grid = _at_most(_GRID_SIDE, labels)
    counts = np.bincount(labels.ravel(), minlength=256)
    return Drawn(
        shares={label: counts[label] / labels.size for label in np.flatnonzero(counts).tolist()},
        grid=(grid.shape[1], grid.shape[0]),
        runs=_runs(grid),
        files={path: len(content) for path, content in contents.items()},
    )


@functools.lru_cache(maxsize=16)
def _open(path: Path) -> Shard:
    return Shard(path, kind="masks")


def _at_most(side: int, array: np.ndarray) -> np.ndarray:
    return array if side >= max(array.shape[:2]) else scaled(array, side)


def _encoded(ending: str, picture: _Picture, option: int, quality: int) -> bytes:
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode(ending, bgr, [option, quality])[1].tobytes()


def _transparent_png(labels: _Labels, palette: UInt8[np.ndarray, "256 3"]) -> bytes:
    last = int(labels.max())
    image = Image.frombytes("P", labels.shape[::-1], np.ascontiguousarray(labels).tobytes())
    image.putpalette(palette[: last + 1].tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", transparency=b"\0" + b"\xff" * last)
    return buffer.getvalue()


def _runs(grid: _Labels) -> list[int]:
    flat = grid.ravel()
    starts = np.flatnonzero(np.r_[True, flat[1:] != flat[:-1]])
    lengths = np.diff(np.r_[starts, flat.size])
    return np.stack([flat[starts].astype(np.int64), lengths], axis=1).ravel().tolist()
