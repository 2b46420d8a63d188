"""The learning rate over the steps of a training."""

from __future__ import annotations

import math

from wsss.config.refine import TrainingConfig

_FIRST_FACTOR = 1e-6  # of the learning rate, at the first step of the warm-up


def learning_rate(step: int, settings: TrainingConfig, relative: float = 1.0) -> float:
    """The learning rate at a step (0-based).

    ``poly`` (eq. 22 of docs/methods/weclip.md): ``1 - (1 - t / w) (1 - 1e-6)`` of the peak for
    t < w, from there on ``(1 - t / T) ^ power`` of it. ``cosine`` (eq. 24 of
    docs/methods/weakclip.md): from the peak to ``min_lr``, times the same factor of the warm-up.

    Args:
        step: t; ``warmup`` is w, ``iterations`` T.
        relative: of a group of parameters, times the peak. With 0 a cosine *rises* to ``min_lr``.
    """
    peak = settings.lr * relative
    warm = 1.0
    if step < settings.warmup:
        warm = 1 - (1 - step / settings.warmup) * (1 - _FIRST_FACTOR)
    if settings.schedule == "cosine":
        decay = (1 + math.cos(math.pi * step / settings.iterations)) / 2
        return warm * (settings.min_lr + (peak - settings.min_lr) * decay)
    if step < settings.warmup:
        return peak * warm
    return peak * float((1 - step / settings.iterations) ** settings.power)
