"""The bootstrap over images: how far a mIoU would move with other images.

As many images are drawn as there are, with replacement; the mIoU of the draw is computed as that
of the images themselves: from summed counts, over the labels that occur. The 95 % interval lies
between the 2.5th and the 97.5th percentile of many draws (Efron & Tibshirani 1993, ch. 13). It
says how much a number depends on the choice of images. It does not say how much it depends on the
seed of a training: that takes several seeds.

A draw is a row of weights, how often each image was drawn; the counts of all draws of a block are
one product of a dense with a sparse matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from wsss.score.metrics.confusion import iou_of, metrics_of
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
    """The mIoU of a first run minus that of a second one on the same images."""

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
    mious = np.empty((len(tables), resamples))
    for start in range(0, resamples, block):
        weights = draw(rng, images, min(block, resamples - start))
        for run, table in enumerate(tables):
            total = np.asarray(sums[run] @ weights.T).reshape(3, table.labels, -1)
            iou = iou_of(*np.moveaxis(total, 2, 1))
            mious[run, start : start + len(weights)] = _mean_defined(iou)
    return mious


def draw(rng: np.random.Generator, images: int, draws: int) -> Int64[np.ndarray, "draws images"]:
    """How often each image is drawn in each of ``draws`` draws of ``images`` out of ``images``."""
    drawn = rng.integers(images, size=(draws, images))
    drawn += images * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * images).reshape(draws, images)


def interval(table: CountTable, *, resamples: int = RESAMPLES, seed: int = SEED) -> Interval | None:
    """The 95 % interval of a run's mIoU; None of fewer than two images or of no truth at all."""
    if len(table.ids) < 2 or not resamples:
        return None
    return _interval(resampled([table], resamples=resamples, seed=seed)[0])


def difference(
    first: CountTable, second: CountTable, *, resamples: int = RESAMPLES, seed: int = SEED
) -> Difference:
    """The mIoU of ``first`` minus that of ``second``, paired: both see the same draws.

    An image that is hard for one run is hard for the other. That cancels, so the interval is
    narrower than those of the two runs suggest.

    Raises:
        ValueError: fewer than two images, different images, or a mIoU that is undefined.
    """
    if len(first.ids) < 2:
        raise ValueError(f"{len(first.ids)} images; a bootstrap needs two at least")
    mious = resampled([first, second], resamples=resamples, seed=seed)
    differences = mious[0] - mious[1]
    ends = _interval(differences)
    if ends is None:
        raise ValueError("a mIoU is undefined: no image has a pixel with a truth")
    return Difference(
        images=len(first.ids),
        value=metrics_of(first.total()).miou - metrics_of(second.total()).miou,
        mean=float(np.nanmean(differences)),
        interval=ends,
        above=float(np.mean(differences > 0)),
        resamples=resamples,
    )


def _interval(values: Float64[np.ndarray, " draws"]) -> Interval | None:
    defined = values[~np.isnan(values)]
    if not defined.size:
        return None
    low, high = np.quantile(defined, _ENDS)
    return Interval(float(low), float(high))


def _mean_defined(iou: Float64[np.ndarray, "draws labels"]) -> Float64[np.ndarray, " draws"]:
    """Mean over the labels that occur; NaN where none does."""
    defined = ~np.isnan(iou)
    count = defined.sum(axis=1)
    total = np.where(defined, iou, 0.0).sum(axis=1)
    mean = np.full(len(iou), np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean
