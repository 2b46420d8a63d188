"""Streaming confusion matrix: constant memory, exact integers, parts that can be merged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, Shaped, UInt8

from wsss.score.metrics.image_counts import ImageCounts

IGNORE = 255


@dataclass(frozen=True)
class Metrics:
    """What a confusion matrix says; shares in [0, 1], NaN where undefined.

    A class has an IoU when it occurs in the truth or in the prediction, a precision when it was
    predicted, a recall when it occurs in the truth. Means run over the classes, background
    included, that have the number: the convention of the field's scripts (on all of VOC or COCO
    every class occurs, and it is the mean over 21 or 81). A class that is predicted but never
    occurs counts as an IoU of 0.
    """

    iou: Float64[np.ndarray, " labels"]
    precision: Float64[np.ndarray, " labels"]
    recall: Float64[np.ndarray, " labels"]
    miou: float
    mean_precision: float
    mean_recall: float
    pixel_accuracy: float


class Confusion:
    """Counts of (true label, predicted label) over pixels.

    Args:
        labels: number of labels, background included.
        ignore_band: the maps that are scored may hold 255: such pixels are counted for `coverage`
            and left out of the matrix. Otherwise a 255 in a prediction is an error.
    """

    def __init__(self, labels: int, *, ignore_band: bool = False) -> None:
        if not 1 <= labels <= IGNORE:
            raise ValueError(f"{labels} labels; expected 1 … {IGNORE}, as {IGNORE} means ignore")
        self.labels = labels
        self.ignore_band = ignore_band
        self.matrix: Int64[np.ndarray, "truth prediction"] = np.zeros((labels, labels), np.int64)
        self.pixels = 0
        """All pixels seen, those without a truth included."""
        self.ignored = 0
        """Those of them that were predicted 255."""
        self.images = ImageCounts(labels)

    def add(
        self,
        truth: UInt8[np.ndarray, "h w"],
        prediction: UInt8[np.ndarray, "h2 w2"],
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
        if truth.shape != prediction.shape:
            raise ValueError(
                f"the prediction is {size(prediction)} pixels, the truth is {size(truth)}"
            )
        ignored = prediction == IGNORE
        self._check("truth", truth[truth != IGNORE])
        self._check("prediction", prediction[~ignored] if self.ignore_band else prediction)
        counted = (truth != IGNORE) & ~ignored
        index = truth[counted].astype(np.intp) * self.labels + prediction[counted]
        matrix = np.bincount(index, minlength=self.labels**2).reshape(self.matrix.shape)
        self.matrix += matrix
        self.pixels += truth.size
        self.ignored += int(np.count_nonzero(ignored))
        if image:
            self.images.add(image, matrix)

    def merge(self, other: Confusion) -> None:
        """Add the counts of another part."""
        if (self.labels, self.ignore_band) != (other.labels, other.ignore_band):
            raise ValueError(f"cannot merge matrices of {self.labels} and {other.labels} labels")
        self.matrix += other.matrix
        self.pixels += other.pixels
        self.ignored += other.ignored
        self.images.merge(other.images)

    @property
    def coverage(self) -> float:
        """Share of all pixels that were not predicted 255; NaN when nothing was seen."""
        return 1.0 - self.ignored / self.pixels if self.pixels else float("nan")

    def metrics(self) -> Metrics:
        """IoU, precision and recall per class, and their means."""
        return metrics_of(self.matrix)

    def _check(self, what: str, values: Shaped[np.ndarray, ...]) -> None:
        if values.size and int(values.max()) >= self.labels:
            highest = int(values.max())
            hint = " (ignored pixels: score this map with an ignore band)" * (highest == IGNORE)
            raise ValueError(
                f"the {what} holds label {highest}{hint}; expected 0 … {self.labels - 1}"
            )


def metrics_of(matrix: Int64[np.ndarray, "truth prediction"]) -> Metrics:
    """The numbers of one confusion matrix (rows: truth, columns: prediction)."""
    hit = np.diag(matrix).astype(np.float64)
    true, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    iou = iou_of(hit, true, predicted)
    precision, recall = _share(hit, predicted), _share(hit, true)
    total = matrix.sum()
    return Metrics(
        iou=iou,
        precision=precision,
        recall=recall,
        miou=mean_defined(iou),
        mean_precision=mean_defined(precision),
        mean_recall=mean_defined(recall),
        pixel_accuracy=float(hit.sum() / total) if total else float("nan"),
    )


def iou_of(
    hit: Shaped[np.ndarray, "*batch labels"],
    true: Shaped[np.ndarray, "*batch labels"],
    predicted: Shaped[np.ndarray, "*batch labels"],
) -> Float64[np.ndarray, "*batch labels"]:
    """Intersection over union from counts of pixels; NaN where a label does not occur."""
    return _share(hit.astype(np.float64), true + predicted - hit)


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
