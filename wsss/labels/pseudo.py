"""Pseudo labels: class scores, background rule, optional CRF, label and confidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, UInt8

from wsss.config.labels import MasksConfig
from wsss.labels.background import with_background
from wsss.labels.crf import dense_crf
from wsss.labels.ignore import IGNORED


def pseudo_label(
    scores: Float32[np.ndarray, "classes h w"],
    classes: Sequence[int],
    image: UInt8[np.ndarray, "h w 3"],
    config: MasksConfig,
    background: Float32[np.ndarray, "h w"] | None = None,
) -> tuple[UInt8[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """The most likely label of each pixel, and how sure that is.

    The confidence is the largest posterior. Without the CRF the posterior is the stack of
    background and class scores divided by its sum: what the CRF starts from. That is much flatter
    than what it ends with, so without the CRF a lower ``min_confidence`` is in place (0.6, say).

    Args:
        scores: in 0 … 1, of the classes that are in the image.
        classes: their 0-based ids, in any order.
        image: RGB, of the same size; looked at by PAR and the CRF alone.
        config: background rule, PAR and CRF.
        background: score of the background where the refiner has its own, else the rule makes it.

    Returns:
        Label (0 background, class id + 1) and confidence (0 … 1). An image without classes is
        background with confidence 0: nobody says what is on it, so nothing can be learned from it.

    Raises:
        ValueError: scores and classes do not fit, or a class id has no label below 255.
    """
    if len(classes) != len(scores):
        raise ValueError(f"{len(scores)} score maps for {len(classes)} classes; expected one each")
    if any(not 0 <= index < IGNORED - 1 for index in classes):
        raise ValueError(f"class ids {list(classes)}: expected 0 … {IGNORED - 2}; masks are uint8")
    if not len(scores):
        return np.zeros(image.shape[:2], np.uint8), np.zeros(image.shape[:2], np.float32)
    if config.crf.enabled:
        # CLIP-ES keeps its scores in float16 and computes the background from those.
        precision = np.float16 if config.crf.unary == "float16" else np.float32
        own = None if background is None else background.astype(precision, copy=False)
        stack = with_background(scores.astype(precision, copy=False), config.background, own)
        if config.par:
            stack = _adapted(stack, image).astype(precision, copy=False)
        share = dense_crf(stack, image, config.crf)
    else:
        share = with_background(scores, config.background, background)
        if config.par:
            share = _adapted(share, image)
        share /= share.sum(axis=0)
    labels = np.array([0, *(index + 1 for index in classes)], np.uint8)
    return labels[share.argmax(axis=0)], share.max(axis=0)


def _adapted(
    stack: Float[np.ndarray, "labels h w"], image: UInt8[np.ndarray, "h w 3"]
) -> Float32[np.ndarray, "labels h w"]:
    """The scores after pixel-adaptive refinement, on one thread: masks are made side by side."""
    import torch  # 3 s at import, for those who ask for it

    from wsss.labels.par import pixel_adaptive_refinement

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    photo = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None]
    scores = torch.from_numpy(stack.astype(np.float32))[None]
    with torch.inference_mode():
        found: np.ndarray = pixel_adaptive_refinement(photo, scores)[0].numpy()
    torch.set_num_threads(threads)
    return found
