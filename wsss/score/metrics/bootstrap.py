"""The bootstrap: how far a mIoU would move with other images, or with other images and seeds.

**Of one training.** As many images are drawn as there are, with replacement; the mIoU of the draw
is computed as that of the images themselves: from summed counts, over the labels that occur. The
95 % interval lies between the 2.5th and the 97.5th percentile of many draws (Efron & Tibshirani
1993, ch. 13). It says how much a number depends on the choice of images. It does not say how much
it depends on the seed of a training: that takes several seeds.

**Of several seeds.** Both are drawn, as every seed was scored on the same images: the images as
above, and independently S - 1 of the S seeds, with replacement. A draw is the mean over the drawn
seeds of their mIoU on the drawn images. S - 1 and not S, because the mean of S - 1 drawn values has
the variance s²/S of the mean of S values, with the sample variance s² (Rao & Wu 1988,
doi:10.1080/01621459.1988.10478591, m = n - 1); of S drawn values it would be s²(S - 1)/S², which
for three seeds is a third too small. Two or three seeds still say little about the spread of all
seeds, so tables show the sample standard deviation over seeds next to the interval.

A draw is a row of weights, how often each image was drawn; the counts of all draws of a block are
one product of a dense with a sparse matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from wsss.config.score import ClassMean
from wsss.score.metrics.confusion import averaged, iou_of, mean_defined, metrics_of
from wsss.score.metrics.image_counts import CountTable

Draws = Float64[np.ndarray, " draws"]
"""The mIoU of a run in each draw of the images, or a difference of two runs."""
RESAMPLES = 1000
SEED = 0
_WEIGHTS = 2**20  # at a time: 8 MB, of however many images
_ENDS = (0.025, 0.975)
IMAGES = "resampled images, one training"
IMAGES_AND_SEEDS = "resampled images and seeds"
IMAGES_OF_PAIRS = "resampled images, one training of each run"
"""What an interval covers, for tables."""


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
    class_mean: ClassMean = "union",
    among: Sequence[int] = (),
    resamples: int = RESAMPLES,
    seed: int = SEED,
    block: int | None = None,
) -> Float64[np.ndarray, "runs resamples"]:
    """The mIoU of each run in each draw; all runs see the same draws.

    Args:
        tables: counts of runs over the same images.
        class_mean: which labels count in the mean of a draw.
        among: labels over which the mean runs; empty = all.
        seed: of the draws; the same seed and number of images give the same ones.
        block: draws at a time (default: as many as `_WEIGHTS` allows); changes memory alone.

    Raises:
        ValueError: the runs were counted on different images.
    """
    mious = np.empty((len(tables), resamples))
    for run, draws, counts in _drawn_counts(tables, resamples, seed, block):
        iou = averaged(iou_of(*counts), counts[1], class_mean)
        mious[run, draws] = _mean_defined(iou[:, list(among)] if among else iou)
    return mious


def _drawn_counts(
    tables: Sequence[CountTable], resamples: int, seed: int, block: int | None = None
) -> Iterator[tuple[int, slice, Int64[np.ndarray, "3 draws labels"]]]:
    """Run, draws, and the pixels hit, true and predicted of each label in these draws."""
    images = len(tables[0].ids)
    if any(table.ids != tables[0].ids for table in tables):
        raise ValueError("the runs were counted on different images")
    block = block or max(1, _WEIGHTS // max(1, images))
    rng = np.random.default_rng(seed)
    sums = [table.sums() for table in tables]
    for start in range(0, resamples, block):
        weights = draw(rng, images, min(block, resamples - start))
        for run, table in enumerate(tables):
            total = np.asarray(sums[run] @ weights.T).reshape(3, table.labels, -1)
            yield run, slice(start, start + len(weights)), np.moveaxis(total, 2, 1)


def draw(rng: np.random.Generator, images: int, draws: int) -> Int64[np.ndarray, "draws images"]:
    """How often each image is drawn in each of ``draws`` draws of ``images`` out of ``images``."""
    drawn = rng.integers(images, size=(draws, images))
    drawn += images * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * images).reshape(draws, images)


def interval(
    table: CountTable,
    *,
    class_mean: ClassMean = "union",
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Interval | None:
    """The 95 % interval of a run's mIoU over draws of the images.

    It covers other images, and this training alone. None of fewer than two images, of no draws, or
    of no truth at all. Arguments as those of `resampled`.
    """
    if len(table.ids) < 2 or not resamples:
        return None
    draws = resampled([table], class_mean=class_mean, resamples=resamples, seed=seed)
    return percentile_interval(draws[0])


def seeds_interval(
    tables: Sequence[CountTable],
    *,
    class_mean: ClassMean = "union",
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Interval | None:
    """The 95 % interval of the mean mIoU of several seeds, over draws of images and of seeds.

    Args:
        tables: counts of each seed, two at least, over the same images.
        class_mean: which labels count in the mean of a draw.
        resamples: number of draws; 0 = no interval.

    Returns:
        None of fewer than two images, of no draws, or of no truth at all.

    Raises:
        ValueError: there are fewer than two seeds, or they were counted on different images.
    """
    if len(tables) < 2:
        raise ValueError(f"{len(tables)} seeds; expected two at least")
    if len(tables[0].ids) < 2 or not resamples:
        return None
    mious = resampled(tables, class_mean=class_mean, resamples=resamples, seed=seed)
    weights = draw_seeds(np.random.default_rng([seed, 1]), len(tables), resamples)
    drawn = np.where(weights > 0, weights * mious.T, 0.0)  # an undefined one counts where drawn
    return percentile_interval(drawn.sum(axis=1) / (len(tables) - 1))


def draw_seeds(
    rng: np.random.Generator, seeds: int, draws: int
) -> Int64[np.ndarray, "draws seeds"]:
    """How often each of ``seeds`` is drawn in each of ``draws`` draws of ``seeds - 1`` of them."""
    return rng.multinomial(seeds - 1, np.full(seeds, 1 / seeds), size=draws)


def difference(
    first: CountTable,
    second: CountTable,
    *,
    class_mean: ClassMean = "union",
    among: Sequence[int] = (),
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Difference:
    """The mIoU of ``first`` minus that of ``second``, paired: both see the same draws.

    An image that is hard for one run is hard for the other. That cancels, so the interval is
    narrower than those of the two runs suggest. It covers other images, and these two trainings
    alone: with other seeds the runs may change places.

    Args:
        first: counts of a run.
        second: of another one, over the same images.
        class_mean: which labels count in the mean IoU of both.
        among: labels over which it runs; empty = all.

    Raises:
        ValueError: fewer than two images, different images, or a mIoU that is undefined.
    """
    if len(first.ids) < 2:
        raise ValueError(f"{len(first.ids)} images; a bootstrap needs two at least")
    tables = [first, second]
    options = {"resamples": resamples, "seed": seed}
    mious = resampled(tables, class_mean=class_mean, among=among, **options)
    differences = mious[0] - mious[1]
    ends = percentile_interval(differences)
    if ends is None:
        raise ValueError("a mIoU is undefined: no image has a pixel with a truth")
    value = [mean_iou(table, class_mean=class_mean, among=among) for table in tables]
    return Difference(
        images=len(first.ids),
        value=value[0] - value[1],
        mean=float(np.nanmean(differences)),
        interval=ends,
        above=float(np.mean(differences > 0)),
        resamples=resamples,
    )


def mean_iou(
    table: CountTable, *, class_mean: ClassMean = "union", among: Sequence[int] = ()
) -> float:
    """The mean IoU of a run on the images themselves; arguments as those of `resampled`."""
    matrix = table.total()
    iou = averaged(metrics_of(matrix).iou, matrix.sum(axis=1), class_mean)
    return mean_defined(iou[list(among)] if among else iou)


def class_differences(
    first: CountTable,
    second: CountTable,
    *,
    class_mean: ClassMean = "union",
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> list[tuple[float, Interval] | None]:
    """The paired difference of the mIoU, then that of the IoU of each label.

    Arguments and errors are those of `difference`.

    Returns:
        Value and 95 % interval over draws of the images; None where a label occurs in neither
        truth nor prediction of a run.
    """
    tables = [first, second]
    ious = np.empty((2, resamples, first.labels + 1))
    for run, draws, counts in _drawn_counts(tables, resamples, seed):
        iou = iou_of(*counts)
        ious[run, draws, 1:] = iou
        ious[run, draws, 0] = _mean_defined(averaged(iou, counts[1], class_mean))
    values = []
    for table in tables:
        metrics = metrics_of(table.total(), class_mean)
        values.append(np.array([metrics.miou, *metrics.iou]))
    differences: list[tuple[float, Interval] | None] = []
    for label, value in enumerate(values[0] - values[1]):
        ends = percentile_interval(ious[0, :, label] - ious[1, :, label])
        differences.append(None if ends is None or np.isnan(value) else (float(value), ends))
    return differences


def percentile_interval(values: Draws) -> Interval | None:
    """Where 95 % of some values lie; undefined ones do not count, None where all are."""
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
