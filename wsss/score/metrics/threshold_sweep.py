"""All background thresholds in one pass over the images, in constant memory.

A pixel is foreground when its largest class score ``m`` beats the background score. With a
constant background ``t`` that is ``m > t``; with the power rule ``(1 - m)^a`` it is ``m > t`` as
well, for the one ``t`` with ``t = (1 - t)^a``, because ``m - (1 - m)^a`` grows with ``m``. So one
threshold on ``m`` stands for either rule. The class of a foreground pixel does not depend on ``t``.
It is therefore enough to count pixels by (truth, class of the largest score, bin of ``m`` between
two thresholds): the confusion matrix at every threshold is a sum over bins.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from wsss.config.score import ClassMean
from wsss.labels.ignore import IGNORED
from wsss.score.metrics.confusion import averaged, iou_of, mean_defined

THRESHOLDS: Float32[np.ndarray, " thresholds"] = (np.arange(100) / 100).astype(np.float32)
"""0.00, 0.01 … 0.99, compared in float32 as the scores are."""


class Sweep:
    """Counts from which the confusion matrix at each of `THRESHOLDS` follows.

    Args:
        labels: number of labels, background included.
    """

    def __init__(self, labels: int) -> None:
        self.labels = labels
        # [truth, class, bin]: bin b holds the pixels that are foreground at the first b thresholds.
        self.counts: Int64[np.ndarray, "truth classes bins"] = np.zeros(
            (labels, labels - 1, len(THRESHOLDS) + 1), np.int64
        )

    def add(
        self,
        truth: UInt8[np.ndarray, "h w"],
        largest: Float32[np.ndarray, "h w"],
        winner: UInt8[np.ndarray, "h w"],
        classes: Sequence[int],
    ) -> None:
        """Count one image.

        Args:
            truth: labels in [0, labels) and 255.
            largest: the largest class score of each pixel.
            winner: position in ``classes`` of the class with that score.
            classes: 0-based ids of the image's classes; may be empty.
        """
        valid = truth != IGNORED
        if truth[valid].size and int(truth[valid].max()) >= self.labels:
            raise ValueError(
                f"the truth holds label {int(truth[valid].max())}; expected 0 … {self.labels - 1}"
            )
        if not classes:  # background at any threshold: bin 0, under whichever class
            self.counts[:, 0, 0] += np.bincount(truth[valid], minlength=self.labels)
            return
        bins = np.searchsorted(
            THRESHOLDS, largest[valid], side="left"
        )  # thresholds below the score
        width, depth = len(classes), len(THRESHOLDS) + 1
        index = (truth[valid].astype(np.intp) * width + winner[valid]) * depth + bins
        counts = np.bincount(index, minlength=self.labels * width * depth)
        self.counts[:, list(classes), :] += counts.reshape(self.labels, width, depth)

    def merge(self, other: Sweep) -> None:
        """Add the counts of another part."""
        self.counts += other.counts

    def matrix(self, position: int) -> Int64[np.ndarray, "truth prediction"]:
        """The confusion matrix at ``THRESHOLDS[position]``."""
        foreground = self.counts[:, :, position + 1 :].sum(axis=2)
        background = self.counts.sum(axis=(1, 2)) - foreground.sum(axis=1)
        return np.concatenate([background[:, None], foreground], axis=1)

    def best(self, curve: Sequence[float]) -> tuple[float, Int64[np.ndarray, "truth prediction"]]:
        """The threshold with the highest mean IoU, the lowest of equals, and its matrix.

        Args:
            curve: what `curve` gives.
        """
        position = int(np.argmax(np.nan_to_num(curve, nan=-1.0)))
        return position / 100, self.matrix(position)

    def curve(self, among: Sequence[int] = (), class_mean: ClassMean = "union") -> list[float]:
        """The mean IoU at each of `THRESHOLDS`.

        Args:
            among: labels over which the mean runs; empty = all.
            class_mean: which of them count (`wsss.score.metrics.confusion.averaged`).
        """
        # (L, K, bin) -> (L, K, threshold): pixels whose score is above each threshold
        above = self.counts[:, :, ::-1].cumsum(axis=2)[:, :, -2::-1]
        labels = np.arange(1, self.labels)
        true = self.counts.sum(axis=(1, 2))
        predicted = np.empty((len(THRESHOLDS), self.labels), np.int64)
        predicted[:, 1:] = above.sum(axis=0).T
        predicted[:, 0] = true.sum() - predicted[:, 1:].sum(axis=1)
        hit = np.empty_like(predicted)
        hit[:, 1:] = above[labels, labels - 1].T
        hit[:, 0] = true[0] - above[0].sum(axis=0)
        true = np.broadcast_to(true, hit.shape)
        iou = averaged(iou_of(hit, true, predicted), true, class_mean)
        return [mean_defined(row) for row in (iou[:, list(among)] if among else iou)]

    def reliability(self) -> list[tuple[int, int]]:
        """Pixels by their largest class score, in steps of 0.01, and those whose class is true.

        The first step holds scores from above 0 to 0.01, the last those above 0.99.
        """
        pixels = self.counts.sum(axis=(0, 1))[1:]
        labels = np.arange(1, self.labels)
        correct = self.counts[labels, labels - 1].sum(axis=0)[1:]
        return list(zip(pixels.tolist(), correct.tolist(), strict=True))
