"""Counts of each kind of product.

Each function takes a part of the images and gives named counts; `wsss.score.metrics.parallel`
distributes the parts over processes and adds the counts up. A `Sweep` stores no counts per image: a
threshold would be chosen again in every draw of images, and they would be a hundred times as many.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, UInt8

from wsss.artifacts.shard import Shard
from wsss.config.labels import BackgroundConfig
from wsss.errors import WsssError
from wsss.labels.background import background_score
from wsss.labels.upsample import upsample
from wsss.score.metrics.confusion import Confusion, size
from wsss.score.metrics.parallel import Counts
from wsss.score.metrics.threshold_sweep import Sweep
from wsss.score.product import PRODUCTS, ProductName
from wsss.score.truth.find import read_truth
from wsss.score.truth.sources import Source

BLOB_SIGMA = 0.25
"""Deviation of the centred blob, as a share of the image's width and of its height. The row at the
best threshold does not depend on it: another deviation gives the same nested ellipses."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is scored."""

    id: str
    height: int
    width: int
    tags: tuple[int, ...]
    truth: Source

    def read_truth(self, labels: int) -> UInt8[np.ndarray, "h w"]:
        """Its ground truth, of the image's size.

        Args:
            labels: number of labels, background included.

        Raises:
            TruthError: see `read_truth` of `wsss.score.truth.find`.
        """
        return read_truth(self.truth, self.id, self.height, self.width, labels)


@dataclass(frozen=True)
class Part:
    """Some images, and the shard that holds their product (None where there is no product)."""

    shard: Path | None
    images: tuple[Image, ...]

    def open(self, kind: str | None) -> Shard:
        """The shard. It stays open for the next part, because opening one checks its whole index.

        Raises:
            ArtifactError: as `Shard`.
        """
        assert self.shard is not None
        try:
            stat = self.shard.stat()
        except OSError:
            return Shard(self.shard, kind=kind)  # raises what that means
        file = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        return _opened(self.shard, kind, file, os.getpid())


@functools.lru_cache(maxsize=1)  # a shard's parts come one after the other
def _opened(path: Path, kind: str | None, file: tuple[int, ...], process: int) -> Shard:
    """Open again when the file was replaced, and in a forked process."""
    return Shard(path, kind=kind)


class ProductError(WsssError, ValueError):
    """A product cannot be scored; the message names the shard and the image."""


def counter(
    product: ProductName,
    labels: int,
    background: BackgroundConfig | None,
    protocols: Sequence[str],
    boundary_ratio: float,
) -> functools.partial[Counts]:
    """The function that counts a part of a product.

    Args:
        labels: number of labels, background included.
        background: the configured rule; of class scores.
        boundary_ratio: of `wsss.score.metrics.boundary.BoundaryCounts`; 0 = none.
    """
    source = PRODUCTS[product]
    count: Callable[..., Counts]
    options: dict[str, Any]
    if product == "blob":
        count, options = count_blob, {"background": background}
    elif source.array:
        names = {"kind": source.shards, "array": source.array}
        count, options = count_scores, {**names, "background": background}
    elif source.shards == "predictions":
        count, options = count_predictions, {"protocols": protocols}
    else:
        count, options = count_masks, {"kind": source.shards}
    return functools.partial(count, labels=labels, boundary_ratio=boundary_ratio, **options)


def count_scores(
    part: Part,
    *,
    kind: str,
    array: str,
    labels: int,
    background: BackgroundConfig,
    boundary_ratio: float = 0.0,
) -> Counts:
    """Class scores on the grid: ``fixed`` at the background rule, ``sweep`` at every threshold.

    Args:
        part: the images; the shard's items have ``array`` [K, h, w] and the attribute ``classes``.
        kind: of the shard, ``cams`` or ``scores``.
        array: which of its arrays; an array ``background`` next to it replaces the rule.
        labels: number of labels, background included.
        boundary_ratio: of `wsss.score.metrics.boundary.BoundaryCounts`; 0 = none.
    """
    fixed, sweep = Confusion(labels, boundary_ratio=boundary_ratio), Sweep(labels)
    shard = part.open(kind)
    for image in part.images:
        item = shard.read(image.id)
        where = f"{shard.path}: {image.id!r}"
        if array not in item.arrays:
            raise ProductError(
                f"{where} has no array {array!r}, only {sorted(item.arrays)}; "
                "switch on what makes it and rerun that stage, or do not score it"
            )
        grid, classes = item.arrays[array], [int(index) for index in item.attrs["classes"]]
        if not np.isfinite(grid).all():
            raise ProductError(f"{where}: {array!r} has NaN or infinite values; rerun its stage")
        if len(classes) != len(grid) or not set(classes) <= set(range(labels - 1)):
            raise ProductError(
                f"{where}: {array!r} is {grid.shape} for the classes {classes}; expected one "
                f"map per class, classes in 0 … {labels - 2}; rerun its stage"
            )
        size = (image.height, image.width)
        scores, learned = upsample(grid.astype(np.float32), size), item.arrays.get("background")
        if learned is not None:
            learned = upsample(learned[None].astype(np.float32), size)[0]
        _count_scores(image, scores, classes, background, fixed, sweep, learned)
    return {"fixed": fixed, "sweep": sweep}


def count_blob(
    part: Part, *, labels: int, background: BackgroundConfig, boundary_ratio: float = 0.0
) -> Counts:
    """The centred blob, given to the first tag of the image, counted as class scores are."""
    fixed, sweep = Confusion(labels, boundary_ratio=boundary_ratio), Sweep(labels)
    for image in part.images:
        classes = list(image.tags[:1])
        scores = centred_blob(image.height, image.width)[None][: len(classes)]
        _count_scores(image, scores, classes, background, fixed, sweep)
    return {"fixed": fixed, "sweep": sweep}


def count_masks(part: Part, *, labels: int, kind: str, boundary_ratio: float = 0.0) -> Counts:
    """Pseudo masks or seeds: ``label`` (scored) and ``train`` (for its coverage)."""
    label = Confusion(labels, boundary_ratio=boundary_ratio)
    train = Confusion(labels, ignore_band=True)
    shard = part.open(kind)
    for image in part.images:
        arrays, truth = shard.read(image.id).arrays, image.read_truth(labels)
        where = f"{shard.path}: {image.id!r},"
        _add_map(label, truth, arrays["label"], f"{where} 'label'", image.id)
        _add_map(train, truth, arrays["train"], f"{where} 'train'")
    return {"label": label, "train": train}


def count_predictions(
    part: Part, *, labels: int, protocols: Sequence[str], boundary_ratio: float = 0.0
) -> Counts:
    """Label maps of a network, by protocol."""
    counts = {name: Confusion(labels, boundary_ratio=boundary_ratio) for name in protocols}
    shard = part.open("predictions")
    for image in part.images:
        arrays, truth = shard.read(image.id).arrays, image.read_truth(labels)
        for name, confusion in counts.items():
            where = f"{shard.path}: {name!r} of {image.id!r}"
            if name not in arrays:
                raise ProductError(f"{where} is missing, other images have it; rerun predict")
            _add_map(confusion, truth, arrays[name], where, image.id)
    return {**counts}


def centred_blob(height: int, width: int) -> Float32[np.ndarray, "h w"]:
    """One Gaussian at the centre of the image, 1 at its top (see `BLOB_SIGMA`)."""
    vertical, horizontal = (
        np.exp(-0.5 * (((np.arange(side) + 0.5) / side - 0.5) / BLOB_SIGMA) ** 2)
        for side in (height, width)
    )
    return np.outer(vertical, horizontal).astype(np.float32)


def _count_scores(
    image: Image,
    scores: Float[np.ndarray, "classes h w"],
    classes: Sequence[int],
    background: BackgroundConfig,
    fixed: Confusion,
    sweep: Sweep,
    learned: Float[np.ndarray, "h w"] | None = None,
) -> None:
    """Count one image.

    Args:
        learned: the refiner's score of the background, instead of the rule.
    """
    truth = image.read_truth(fixed.labels)
    if classes:
        largest = scores.max(axis=0)
        winner = scores.argmax(axis=0).astype(np.uint8)
    else:
        largest = np.zeros(truth.shape, np.float32)
        winner = np.zeros(truth.shape, np.uint8)
    # The arg max of [background, classes]; at a tie the background, which comes first, wins.
    bar = background_score(largest, background) if learned is None else learned
    foreground = largest > bar if classes else largest > 0
    label_of = np.array([*classes, 0], np.uint8) + 1
    prediction = np.where(foreground, label_of[winner], 0).astype(np.uint8)
    try:
        fixed.add(truth, prediction, image.id)
    except ValueError as error:
        raise ProductError(f"{image.id!r}: {error}") from None
    sweep.add(truth, largest, winner, classes)


def _add_map(
    confusion: Confusion,
    truth: UInt8[np.ndarray, "h w"],
    labels: UInt8[np.ndarray, "h2 w2"],
    where: str,
    image: str = "",
) -> None:
    if labels.shape != truth.shape:
        raise ProductError(
            f"{where} is {size(labels)} pixels, the truth is {size(truth)}; rerun the stage that "
            "made it"
        )
    try:
        confusion.add(truth, labels, image)
    except ValueError as error:
        raise ProductError(f"{where}: {error}") from None
