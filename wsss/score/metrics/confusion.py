"""Streaming confusion matrix: constant memory, exact integers, parts that can be merged."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, Integer, Shaped

from wsss.config.score import ClassMean
from wsss.labels.ignore import IGNORED
from wsss.score.metrics.boundary import BoundaryCounts
from wsss.score.metrics.image_counts import CountTable, ImageCounts, RowCounts


@dataclass(frozen=True)
class Metrics:
    """What a confusion matrix says; shares in [0, 1], NaN where undefined.

    A class has an IoU when it occurs in the truth or in the prediction, a precision when it was
    predicted, a recall when it occurs in the truth. Means run over the classes, background
    included, that have the number. A class that is predicted but never occurs counts as an IoU of
    0, unless the mean of the IoU is asked for over the classes of the truth alone
    (`wsss.config.score.ClassMean`). On all of VOC or COCO every class occurs, and either mean is
    the one over 21 or 81.

    False positives and false negatives are shares of the union of truth and prediction: where a
    class has an IoU, the three add up to 1. Their means run over the classes of the mean IoU.
    """

    iou: Float64[np.ndarray, " labels"]
    precision: Float64[np.ndarray, " labels"]
    recall: Float64[np.ndarray, " labels"]
    false_positive: Float64[np.ndarray, " labels"]
    false_negative: Float64[np.ndarray, " labels"]
    miou: float
    mean_precision: float
    mean_recall: float
    mean_false_positive: float
    mean_false_negative: float
    pixel_accuracy: float


class Confusion:
    """Counts of (true label, predicted label) over pixels.

    Args:
        labels: number of labels, background included.
        ignore_band: the maps that are scored may hold 255: such pixels are counted for `coverage`
            and left out of the matrix. Otherwise a 255 in a prediction is an error.
        boundary_ratio: of `BoundaryCounts`; 0 = no boundaries are counted.
    """

    def __init__(
        self, labels: int, *, ignore_band: bool = False, boundary_ratio: float = 0.0
    ) -> None:
        is_number = isinstance(labels, int | np.integer) and not isinstance(labels, bool)
        if not is_number or not 1 <= labels <= IGNORED:
            raise ValueError(
                f"{labels!r} labels; expected 1 … {IGNORED}, as {IGNORED} means ignore"
            )
        if not 0 <= boundary_ratio <= 1:
            raise ValueError(f"boundary_ratio is {boundary_ratio}; expected a share, 0 … 1")
        if ignore_band and boundary_ratio:
            raise ValueError("boundaries of maps with an ignore band are not defined; pass one")
        self.labels = labels
        self.ignore_band = ignore_band
        self.matrix: Int64[np.ndarray, "truth prediction"] = np.zeros((labels, labels), np.int64)
        self.pixels = 0
        """All pixels seen, those without a truth included."""
        self.ignored = 0
        """Those of them that were predicted 255."""
        self.images = ImageCounts(labels, CountTable)
        self.boundary = BoundaryCounts(labels, boundary_ratio) if boundary_ratio else None

    def add(
        self,
        truth: Integer[np.ndarray, "h w"],
        prediction: Integer[np.ndarray, "h2 w2"],
        image: str = "",
    ) -> None:
        """Count one image; pixels whose truth is 255 are left out of the matrix.

        Args:
            truth: labels in [0, labels) and 255.
            prediction: labels in [0, labels), and 255 with an ignore band.
            image: id under which its counts are also stored by themselves; empty: they are not.

        Raises:
            ValueError: the shapes differ, or a label is out of range.
        """
        truth, prediction = _label_map("truth", truth), _label_map("prediction", prediction)
        if truth.shape != prediction.shape:
            raise ValueError(
                f"the prediction is {size(prediction)} pixels, the truth is {size(truth)}"
            )
        ignored = prediction == IGNORED
        self._check("truth", truth[truth != IGNORED])
        self._check("prediction", prediction[~ignored] if self.ignore_band else prediction)
        counted = (truth != IGNORED) & ~ignored
        cells = self.labels**2
        bins = 4 * cells if self.boundary else cells
        index_type = np.min_scalar_type(bins - 1)  # small ones are several times as fast
        index = truth.astype(index_type) * index_type.type(self.labels)
        index += prediction.astype(index_type, copy=False)
        if self.boundary:  # the same pass over the pixels counts both
            index += self.boundary.regions(truth, prediction) * index_type.type(cells)
        counts = np.bincount(index[counted], minlength=bins).reshape(-1, self.labels, self.labels)
        matrix = counts.sum(axis=0)
        self.matrix += matrix
        self.pixels += truth.size
        self.ignored += int(np.count_nonzero(ignored))
        if image:
            self.images.add(image, matrix)
        if self.boundary:
            self.boundary.add(counts, image)

    def merge(self, other: Confusion) -> None:
        """Add the counts of another part.

        Raises:
            TypeError: it is no `Confusion`.
            ValueError: it counts other labels, or by other rules.
        """
        if not isinstance(other, Confusion):
            raise TypeError(f"expected a Confusion to merge, not {type(other).__name__}")
        if self._kind != other._kind:
            raise ValueError(
                f"cannot merge counts of {self.labels} and {other.labels} labels, or of other rules"
            )
        self.matrix += other.matrix
        self.pixels += other.pixels
        self.ignored += other.ignored
        self.images.merge(other.images)
        if self.boundary and other.boundary:
            self.boundary.merge(other.boundary)

    @property
    def _kind(self) -> tuple[int, bool, float]:
        return self.labels, self.ignore_band, self.boundary.ratio if self.boundary else 0.0

    @property
    def coverage(self) -> float:
        """Share of all pixels that were not predicted 255; NaN when nothing was seen."""
        return 1.0 - self.ignored / self.pixels if self.pixels else float("nan")

    @property
    def image_counts(self) -> RowCounts:
        """The counts of each image that was given an id."""
        boundary = self.boundary.images.table() if self.boundary else None
        return RowCounts(self.images.table(), boundary)

    def metrics(self) -> Metrics:
        """IoU, precision and recall per class, and their means."""
        return metrics_of(self.matrix)

    def _check(self, what: str, values: Shaped[np.ndarray, ...]) -> None:
        if values.dtype.kind not in "bui":
            raise ValueError(f"the {what} is of type {values.dtype}, expected whole numbers")
        if values.size and int(values.min()) < 0:
            raise ValueError(
                f"the {what} holds label {values.min()}; expected 0 … {self.labels - 1}"
            )
        if values.size and int(values.max()) >= self.labels:
            highest = int(values.max())
            hint = " (ignored pixels: score this map with an ignore band)" * (highest == IGNORED)
            raise ValueError(
                f"the {what} holds label {highest}{hint}; expected 0 … {self.labels - 1}"
            )


def _label_map(what: str, labels: Any) -> Integer[np.ndarray, "h w"]:
    """Labels as an array: of a list, a PIL image, a tensor …

    Raises:
        ValueError: they have no rows and columns.
    """
    if hasattr(labels, "labels"):  # what predicts gives them with a confidence
        remedy = "; pass its .labels"
    elif isinstance(labels, str | os.PathLike):
        remedy = "; of a palette PNG pass PIL.Image.open(path)"
    else:
        try:
            array = np.asarray(labels.detach() if hasattr(labels, "detach") else labels)
        except ValueError:  # rows of different lengths
            raise ValueError(
                f"the {what} has rows of different lengths, expected labels as [height, width]"
            ) from None
        if array.ndim == 2:
            return array
        raise ValueError(f"the {what} is {list(array.shape)}, expected labels as [height, width]")
    raise ValueError(
        f"the {what} is a {type(labels).__name__}, expected labels as [height, width]{remedy}"
    )


def metrics_of(
    matrix: Int64[np.ndarray, "truth prediction"], class_mean: ClassMean = "union"
) -> Metrics:
    """The numbers of one confusion matrix (rows: truth, columns: prediction).

    Args:
        matrix: pixels.
        class_mean: the labels that the means of IoU, false positives and false negatives run over.
    """
    hit = np.diag(matrix).astype(np.float64)
    true, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    union = true + predicted - hit
    iou = iou_of(hit, true, predicted)
    false_positive, false_negative = _share(predicted - hit, union), _share(true - hit, union)
    precision, recall = _share(hit, predicted), _share(hit, true)
    total = matrix.sum()

    def mean(values: Float64[np.ndarray, " labels"]) -> float:
        return mean_defined(averaged(values, true, class_mean))

    return Metrics(
        iou=iou,
        precision=precision,
        recall=recall,
        false_positive=false_positive,
        false_negative=false_negative,
        miou=mean(iou),
        mean_precision=mean_defined(precision),
        mean_recall=mean_defined(recall),
        mean_false_positive=mean(false_positive),
        mean_false_negative=mean(false_negative),
        pixel_accuracy=float(hit.sum() / total) if total else float("nan"),
    )


def iou_of(
    hit: Shaped[np.ndarray, "*batch labels"],
    true: Shaped[np.ndarray, "*batch labels"],
    predicted: Shaped[np.ndarray, "*batch labels"],
) -> Float64[np.ndarray, "*batch labels"]:
    """Intersection over union from counts of pixels; NaN where a label does not occur."""
    return _share(hit.astype(np.float64), true + predicted - hit)


def averaged(
    values: Float64[np.ndarray, "*batch labels"],
    true: Shaped[np.ndarray, "*batch labels"],
    class_mean: ClassMean,
) -> Float64[np.ndarray, "*batch labels"]:
    """The values that a class mean runs over; NaN in place of the others.

    Args:
        values: of each label, NaN where undefined.
        true: pixels of each label in the truth.
        class_mean: ``union``: all that are defined; ``truth``: those of labels in the truth.
    """
    return values if class_mean == "union" else np.where(true > 0, values, np.nan)


def mean_defined(values: Float64[np.ndarray, " n"]) -> float:
    """Mean of the values that are not NaN; NaN when there is none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def size(array: Shaped[np.ndarray, "height width"]) -> str:
    """``width x height`` of a label map, as people and image tools say it."""
    return f"{array.shape[1]} x {array.shape[0]}"


def _share(
    part: Float64[np.ndarray, "*n"], whole: Shaped[np.ndarray, "*n"]
) -> Float64[np.ndarray, "*n"]:
    result = np.full(part.shape, np.nan)
    np.divide(part, whole, out=result, where=whole > 0)
    return result
