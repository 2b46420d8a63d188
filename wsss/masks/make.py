"""The masks of one image; runs in a worker process, so nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float16, UInt8

from wsss.artifacts.errors import ArtifactError
from wsss.config.labels import MasksConfig
from wsss.data.images.read import read_image
from wsss.labels.ignore import ignore_band
from wsss.labels.pseudo import pseudo_label
from wsss.labels.upsample import upsample


@dataclass(frozen=True)
class MaskTask:
    """What is needed of one image; small, since it travels to another process."""

    photo: Path
    height: int
    width: int
    classes: tuple[int, ...]
    """0-based class ids of the scores."""
    scores: Float16[np.ndarray, "classes h w"]
    """Class scores on the patch grid, in 0 … 1."""
    background: Float16[np.ndarray, "h w"] | None = None
    """The refiner's own score of the background, if it has one."""
    hard: UInt8[np.ndarray, "height width"] | None = None
    """Labels that were imported as such, 255 where unknown."""


@dataclass(frozen=True)
class PseudoMask:
    """The two products of one image."""

    label: UInt8[np.ndarray, "height width"]
    """0 background, class id + 1; never 255. This is what is scored."""
    train: UInt8[np.ndarray, "height width"]
    """The same with 255 where unsure. This is what a segmenter learns from."""


def make_mask(task: MaskTask, *, config: MasksConfig, max_pixels: int) -> PseudoMask:
    """Scores to image size, background rule, CRF, ignore band.

    The photo is opened only if something looks at it: PAR or the CRF, of an image that has classes.

    Args:
        task: the image.
        config: how.
        max_pixels: passed to `read_image`.

    Raises:
        ImageError: the photo cannot be read.
        ArtifactError: the photo is of another size than it was at ingest.
    """
    image, size = (
        task_image(task, max_pixels, looked_at=config.crf.enabled or config.par),
        (task.height, task.width),
    )
    scores, own = upsample(task.scores, size), None
    if task.background is not None:
        own = upsample(task.background[None], size)[0]
    label, confidence = pseudo_label(scores, task.classes, image, config, own)
    return PseudoMask(label, ignore_band(label, confidence, config.min_confidence))


def task_image(task: MaskTask, max_pixels: int, *, looked_at: bool) -> UInt8[np.ndarray, "h w 3"]:
    """The photo; blackness if nothing will look at it."""
    size = (task.height, task.width)
    if not (looked_at and task.classes):
        black: np.ndarray = np.broadcast_to(np.uint8(0), (*size, 3))
        return black
    image = read_image(task.photo, max_pixels=max_pixels)
    if image.shape[:2] != size:
        raise ArtifactError(
            f"{task.photo}: is {image.shape[1]} x {image.shape[0]} pixels, at ingest it was "
            f"{task.width} x {task.height}; rerun ingest"
        )
    return image
