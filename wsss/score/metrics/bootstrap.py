"""How far a mIoU would move with other images: the bootstrap over images.

As many images are drawn as there are, with replacement; the mIoU of the draw is computed as that
of the images themselves: from summed counts, over the labels that occur. The 95 % interval lies
between the 2.5th and the 97.5th percentile of many draws (Efron & Tibshirani 1993, ch. 13). It
tells how much a number hangs on the choice of images. It does not tell how much it hangs on the
seed of a training: that is what several seeds are for.

A draw is a row of weights, how often each image was drawn; the counts of all draws of a block are
one product of a dense with a sparse matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from wsss.score.metrics.confusion import iou_of
from wsss.score.metrics.image_counts import CountTable

RESAMPLES = 1000
SEED = 0
_WEIGHTS = 2**20  # at a time: 8 MB, of however many images
_ENDS = (0.025, 0.975)


@dataclass(frozen=True)
class Interval:
    """Where 95 % of the draws lie; shares, not percent."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """The mIoU of one run minus that of another on the same images."""

    images: int
    value: float
    """On the images themselves."""
    mean: float
    """Over the draws."""
    interval: Interval
    above: float
    """Share of the draws in which the first run is the better one."""
    resamples: int
    """Number of draws."""


def resampled(
    tables: Sequence[CountTable],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    block: int | None = None,
) -> Float64[np.ndarray, "runs resamples"]:
    """The mIoU of each run in each draw; all runs see the same draws.

    Args:
        tables: counts of runs over the same images.
        resamples: number of draws.
        seed: of the draws; the same seed and number of images give the same ones.
        block: draws at a time (default: as many as `_WEIGHTS` allows); changes memory alone.

    Raises:
        ValueError: the runs were counted on different images.
    """
    images = len(tables[0].ids)
    if any(table.ids != tables[0].ids for table in tables):
        raise ValueError("the runs were counted on different images")
    block = block or max(1, _WEIGHTS // max(1, images))
    rng = np.random.default_rng(seed)
    sums = [table.sums() for table in tables]
    found = np.empty((len(tables), resamples))
    for start in range(0, resamples, block):
        weights = draw(rng, images, min(block, resamples - start))
        for run, table in enumerate(tables):
            total = np.asarray(sums[run] @ weights.T).reshape(3, table.labels, -1)
            iou = iou_of(*np.moveaxis(total, 2, 1))
            found[run, start : start + len(weights)] = _mean_defined(iou)
    return found


def draw(rng: np.random.Generator, images: int, draws: int) -> Int64[np.ndarray, "draws images"]:
    """How often each image is drawn in each of ``draws`` draws of ``images`` out of ``images``."""
    chosen = rng.integers(images, size=(draws, images))
    chosen += images * np.arange(draws)[:, None]
    return np.bincount(chosen.ravel(), minlength=draws * images).reshape(draws, images)


def interval(table: CountTable, *, resamples: int = RESAMPLES, seed: int = SEED) -> Interval | None:
    """The 95 % interval of a run's mIoU; None of fewer than two images or of no truth at all."""
    if len(table.ids) < 2 or not resamples:
        return None
    return _between(resampled([table], resamples=resamples, seed=seed)[0])


def difference(
    one: CountTable, other: CountTable, *, resamples: int = RESAMPLES, seed: int = SEED
) -> Difference:
    """The mIoU of ``one`` minus that of ``other``, paired: both see the same draws.

    What makes an image hard is hard for both and cancels, so that the interval is narrower than
    those of the two runs suggest.

    Raises:
        ValueError: fewer than two images, different images, or a mIoU that is undefined.
    """
    if len(one.ids) < 2:
        raise ValueError(f"{len(one.ids)} images; a bootstrap needs two at least")
    first, second = resampled([one, other], resamples=resamples, seed=seed)
    apart = first - second
    found = _between(apart)
    if found is None:
        raise ValueError("a mIoU is undefined: no image has a pixel with a truth")
    values = [_miou(table) for table in (one, other)]
    return Difference(
        images=len(one.ids),
        value=values[0] - values[1],
        mean=float(np.nanmean(apart)),
        interval=found,
        above=float(np.mean(apart > 0)),
        resamples=resamples,
    )


def _between(values: Float64[np.ndarray, " draws"]) -> Interval | None:
    defined = values[~np.isnan(values)]
    if not defined.size:
        return None
    low, high = np.quantile(defined, _ENDS)
    return Interval(float(low), float(high))


def _miou(table: CountTable) -> float:
    matrix = table.total()
    iou = iou_of(np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0))
    return float(_mean_defined(iou[None])[0])


def _mean_defined(iou: Float64[np.ndarray, "draws labels"]) -> Float64[np.ndarray, " draws"]:
    """Mean over the labels that occur; NaN where none does."""
    there = ~np.isnan(iou)
    count = there.sum(axis=1)
    total = np.where(there, iou, 0.0).sum(axis=1)
    mean = np.full(len(iou), np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean
