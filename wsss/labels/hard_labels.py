"""Hard labels straight from CAMs (seeds), with or without an ignore band."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from wsss.config.labels import BackgroundConfig, MasksConfig, SeedsConfig
from wsss.labels.ignore import IGNORED
from wsss.labels.pseudo import pseudo_label


def hard_labels(
    scores: Float[np.ndarray, "classes h w"],
    classes: Sequence[int],
    image: UInt8[np.ndarray, "height width 3"],
    config: SeedsConfig,
) -> tuple[UInt8[np.ndarray, "height width"], UInt8[np.ndarray, "height width"]]:
    """The hard labels of an image, without and with 255.

    With two values of the rule (IRN's two thresholds, AffinityNet's two powers) the second map is
    255 where they disagree on the background, and the label of the stricter value elsewhere; the
    first map is the label under their mean.

    Args:
        scores: in 0 … 1, of the classes that are in the image; of any size.
        classes: their 0-based ids, in any order.
        image: RGB; the CRF alone looks at it.
        config: background rule and CRF.

    Returns:
        Two label maps: 0 background, class id + 1. The second is 255 for an image without classes:
        its content is unknown.

    Raises:
        ValueError: see `wsss.labels.pseudo.pseudo_label`.
    """

    def under(value: float) -> UInt8[np.ndarray, "height width"]:
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
