"""The background rule: a background score from the scores of the classes."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from wsss.config.labels import BackgroundConfig


def background_score(
    largest: Float[np.ndarray, "h w"], config: BackgroundConfig
) -> Float[np.ndarray, "h w"]:
    """The background score of each pixel.

    Args:
        largest: the largest class score of each pixel, in 0 … 1.
        config: ``power``: (1 - largest)^value, as in CLIP-ES and WeCLIP; ``constant``: the value
            itself, a plain threshold on the class scores.

    Returns:
        Scores of the same type as ``largest``; float16 is computed in float16.
    """
    if config.rule == "constant":
        return np.full_like(largest, config.value)
    score = np.clip(1 - largest, 0, 1)
    return score if config.value == 1.0 else score**config.value


def with_background(
    scores: Float[np.ndarray, "classes h w"],
    config: BackgroundConfig,
    background: Float[np.ndarray, "h w"] | None = None,
) -> Float[np.ndarray, "labels h w"]:
    """Put the background score in front of the class scores.

    Args:
        scores: in 0 … 1, of the classes that are in the image; there may be none.
        config: the background rule.
        background: score of the background, instead of the rule's.

    Returns:
        A new array, labels = classes + 1, of the scores' type. Its arg max is the label: at a tie
        the background wins, then the earlier class.
    """
    stack = np.empty((len(scores) + 1, *scores.shape[1:]), scores.dtype)
    stack[1:] = scores
    if background is not None:
        stack[0] = background
        return stack
    largest = scores.max(axis=0) if len(scores) else np.zeros(scores.shape[1:], scores.dtype)
    stack[0] = background_score(largest, config)
    return stack
