"""The seed of one image; runs in a worker process, so nothing here imports torch."""

from __future__ import annotations

import numpy as np

from wsss.config.labels import SeedsConfig
from wsss.labels.hard_labels import seed_label
from wsss.labels.ignore import IGNORED
from wsss.labels.upsample import upsample
from wsss.masks.make import MaskTask, PseudoMask, task_image


def make_seed(task: MaskTask, *, config: SeedsConfig, max_pixels: int) -> PseudoMask:
    """Scores to image size, background rule, CRF where enabled; arguments as `make_mask`.

    Raises:
        ImageError: the photo cannot be read.
        ArtifactError: the photo is of another size than it was at ingest.
    """
    if task.hard is not None:
        return PseudoMask(np.where(task.hard == IGNORED, np.uint8(0), task.hard), task.hard)
    image = task_image(task, max_pixels, looked_at=config.crf.enabled)
    scores = upsample(task.scores, (task.height, task.width))
    return PseudoMask(*seed_label(scores, task.classes, image, config))
