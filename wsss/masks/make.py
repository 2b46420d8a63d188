"""The label maps of one image; runs in a worker process, so nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float16, UInt8

from wsss.config.labels import MasksConfig, SeedsConfig
from wsss.data.images.read import read_image
from wsss.labels.hard_labels import hard_labels
from wsss.labels.ignore import IGNORED, ignore_band
from wsss.labels.pseudo import pseudo_label, score_shares
from wsss.masks.proposal_files import read_proposals


@dataclass(frozen=True)
class MaskTask:
    """The inputs of one image; small, since they travel to another process."""

    photo: Path
    digest: str
    """sha256 of the photo's bytes at ingest."""
    height: int
    width: int
    classes: tuple[int, ...]
    """0-based class ids of the scores."""
    scores: Float16[np.ndarray, "classes h w"]
    """Class scores on the patch grid, in 0 … 1."""
    background: Float16[np.ndarray, "h w"] | None = None
    """The refiner's score of the background, if it has one."""
    proposals: Path | None = None
    """The file of its mask proposals, for ``masks.refine: sam``."""
    imported: UInt8[np.ndarray, "height width"] | None = None
    """Hard labels of another project, 255 where unknown."""


@dataclass(frozen=True)
class PseudoMask:
    """The two products of one image."""

    classes: tuple[int, ...]
    """0-based ids of the image's classes."""
    label: UInt8[np.ndarray, "height width"]
    """0 background, class id + 1; never 255. It is scored."""
    train: UInt8[np.ndarray, "height width"]
    """The same with 255 where the label is uncertain. A segmenter learns from it."""


def make_mask(task: MaskTask, *, config: MasksConfig, max_pixels: int) -> PseudoMask:
    """Background rule, PAR, CRF, proposals, ignore band at image size.

    The photo is opened only for PAR or the CRF of an image that has classes.

    Args:
        config: section ``masks``.
        max_pixels: passed to `read_image`.

    Raises:
        ImageError: the photo cannot be read, or has changed since ingest.
        DataError: the proposals cannot be read, or are of another size.
    """
    image = _image(task, max_pixels, needed=config.crf.enabled or config.par)
    proposals = []
    if task.proposals is not None and task.classes:
        proposals = read_proposals(task.proposals, task.height, task.width)
    label, confidence = pseudo_label(
        task.scores, task.classes, image, config, task.background, proposals
    )
    train = ignore_band(label, confidence, config.min_confidence)
    if config.min_score and task.classes:
        shares = score_shares(label, task.scores, task.classes, config.background, task.background)
        train = ignore_band(train, shares, config.min_score)
    return PseudoMask(task.classes, label, train)


def make_seeds(task: MaskTask, *, config: SeedsConfig, max_pixels: int) -> PseudoMask:
    """Background rule, CRF where enabled; imported labels stay as they are.

    Arguments and errors as `make_mask`, with section ``seeds``.
    """
    if task.imported is not None:
        label = np.where(task.imported == IGNORED, np.uint8(0), task.imported)
        return PseudoMask(task.classes, label, task.imported)
    image = _image(task, max_pixels, needed=config.crf.enabled)
    return PseudoMask(task.classes, *hard_labels(task.scores, task.classes, image, config))


def _image(task: MaskTask, max_pixels: int, *, needed: bool) -> UInt8[np.ndarray, "h w 3"]:
    """The photo; a black one if it is not needed."""
    size = (task.height, task.width)
    if not (needed and task.classes):
        return np.broadcast_to(np.uint8(0), (*size, 3))
    return read_image(task.photo, digest=task.digest, max_pixels=max_pixels)
