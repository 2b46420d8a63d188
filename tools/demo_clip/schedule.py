"""The learning rate over a training."""

import math


def rate_share(done: float, warm_up: float) -> float:
    """Share of the highest rate: a straight rise, then half a cosine down to one hundredth.

    Args:
        done: share of the steps that are done, 0..1.
        warm_up: share of the steps in which the rate rises.
    """
    if done < warm_up:
        return (done + 1e-3) / (warm_up + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up))) * 0.99 + 0.01
