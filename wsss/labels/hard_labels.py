"""Seeds: hard labels straight from CAMs, with or without a band that nothing is learned from."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, UInt8

from wsss.config.labels import BackgroundConfig, MasksConfig, SeedsConfig
from wsss.labels.ignore import IGNORED
from wsss.labels.pseudo import pseudo_label


def seed_label(
    scores: Float32[np.ndarray, "classes h w"],
    classes: Sequence[int],
    image: UInt8[np.ndarray, "h w 3"],
    config: SeedsConfig,
) -> tuple[UInt8[np.ndarray, "h w"], UInt8[np.ndarray, "h w"]]:
    """The seed of an image, without and with 255.

    With two values (IRN's double threshold, or AffinityNet's two powers) the second is 255 where
    they disagree on what is background, and the label of the stricter value elsewhere; the first is
    the label under their mean.

    Args:
        scores: in 0 … 1, of the classes that are in the image.
        classes: their 0-based ids, in any order.
        image: RGB, of the same size; looked at by the CRF alone.
        config: background rule and CRF.

    Returns:
        Two label maps: 0 background, class id + 1. Of an image without classes the second is 255:
        nobody says what is on it.

    Raises:
        ValueError: see `wsss.labels.pseudo.pseudo_label`.
    """

    def under(value: float) -> UInt8[np.ndarray, "h w"]:
        background = BackgroundConfig(rule=config.rule, value=value)
        masks = MasksConfig(background=background, crf=config.crf)
        return pseudo_label(scores, classes, image, masks)[0]

    values = sorted(set(config.values))
    label = under(statistics.mean(values))
    if not len(classes):
        return label, np.full_like(label, IGNORED)
    if len(values) == 1:
        return label, label.copy()
    low, high = under(values[0]), under(values[1])
    # A larger constant leaves less foreground, a larger power more.
    strict = high if config.rule == "constant" else low
    return label, np.where((low > 0) == (high > 0), strict, np.uint8(IGNORED))
