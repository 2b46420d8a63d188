"""Pseudo labels: class scores, background rule, optional CRF, label and confidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, UInt8

from wsss.config.labels import BackgroundConfig, MasksConfig
from wsss.labels.background import with_background
from wsss.labels.crf import bounded, bounded_image, dense_crf
from wsss.labels.ignore import IGNORED
from wsss.labels.proposals import Proposal, relabel
from wsss.labels.upsample import upsample, winners


def pseudo_label(
    scores: Float[np.ndarray, "classes h w"],
    classes: Sequence[int],
    image: UInt8[np.ndarray, "height width 3"],
    config: MasksConfig,
    background: Float[np.ndarray, "h w"] | None = None,
    proposals: Sequence[Proposal] = (),
) -> tuple[UInt8[np.ndarray, "height width"], Float32[np.ndarray, "height width"]]:
    """The most likely label of each pixel, and its confidence.

    The confidence is the largest posterior. Without the CRF the posterior is the stack of
    background and class scores divided by its sum, from which the CRF starts. It is much flatter
    than the CRF's result, so a lower ``min_confidence`` fits (0.6, say).

    Args:
        scores: in 0 … 1, of the classes that are in the image; of any size.
        classes: their 0-based ids, in any order.
        image: RGB; PAR and the CRF alone look at it.
        config: background rule, PAR and CRF. These two run at ``crf.long_side``; label and
            confidence are then taken from the posterior at the size of the image.
        background: the refiner's score of the background; None applies the rule.
        proposals: masks at the size of the image; with any, `relabel` has the last word.

    Returns:
        Label (0 background, class id + 1) and confidence (0 … 1). An image without classes is
        background with confidence 0: its content is unknown, so nothing can be learned from it.

    Raises:
        ValueError: scores and classes do not fit, or a class id has no label below 255.
    """
    if len(classes) != len(scores):
        raise ValueError(f"{len(scores)} score maps for {len(classes)} classes; expected one each")
    if any(not 0 <= index < IGNORED - 1 for index in classes):
        raise ValueError(f"class ids {list(classes)}: expected 0 … {IGNORED - 2}; masks are uint8")
    if not len(scores):
        return np.zeros(image.shape[:2], np.uint8), np.zeros(image.shape[:2], np.float32)
    size = (image.shape[0], image.shape[1])
    crf = config.crf
    if crf.enabled:
        image, crf = bounded(image, crf)
    elif config.par:
        image = bounded_image(image, crf)
    scores = upsample(scores, image.shape[:2])
    if background is not None:
        background = upsample(background[None], image.shape[:2])[0]
    # CLIP-ES stores its scores in float16 and computes the background from those.
    half = crf.enabled and crf.unary == "float16"
    precision = np.float16 if half else np.float32
    stack = with_background(scores.astype(precision, copy=False), config.background, background)
    if config.par:
        stack = _par(stack, image).astype(precision, copy=False)
    if crf.enabled:
        probs = dense_crf(stack, image, crf)
    else:
        total = stack.sum(axis=0)
        probs = stack / np.where(total, total, 1)  # confidence 0 where no label has a score
    labels = np.array([0, *(index + 1 for index in classes)], np.uint8)
    index, confidence = winners(probs, size)
    if proposals:
        index, confidence = relabel(index, confidence, probs, proposals, config.proposals.threshold)
    return labels[index], confidence


def score_shares(
    label: UInt8[np.ndarray, "height width"],
    scores: Float[np.ndarray, "classes h w"],
    classes: Sequence[int],
    config: BackgroundConfig,
    background: Float[np.ndarray, "h w"] | None = None,
) -> Float32[np.ndarray, "height width"]:
    """What share of the scores of a pixel its label has, 0 … 1, before PAR and CRF.

    A CRF is nearly certain almost everywhere, the scores are not: they still tell where the network
    was in doubt.

    Args:
        label: 0 background, class id + 1, at the size of the image.
        scores: in 0 … 1, of the classes that are in the image; of any size.
        classes: their 0-based ids, at least one.
        config: the background rule.
        background: the refiner's score of the background; None applies the rule.
    """
    size = (label.shape[0], label.shape[1])
    maps = upsample(scores, size).astype(np.float32)
    behind = None if background is None else upsample(background[None], size)[0]
    stack = with_background(maps, config, behind)
    label_scores = np.zeros(size, np.float32)
    for value, plane in zip((0, *(index + 1 for index in classes)), stack, strict=True):
        label_scores = np.where(label == value, plane, label_scores)
    total = stack.sum(axis=0)
    return label_scores / np.where(total, total, 1)


def _par(
    stack: Float[np.ndarray, "labels h w"], image: UInt8[np.ndarray, "h w 3"]
) -> Float32[np.ndarray, "labels h w"]:
    """The scores after pixel-adaptive refinement, on one thread: processes run in parallel."""
    import torch  # takes 3 s, so only where PAR is on

    from wsss.compute.threads import fixed_threads
    from wsss.labels.par import pixel_adaptive_refinement

    photo = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None]
    scores = torch.from_numpy(stack.astype(np.float32))[None]
    with torch.inference_mode(), fixed_threads(1):
        refined: Float32[np.ndarray, "_ _ _"] = pixel_adaptive_refinement(photo, scores)[0].numpy()
    return refined
