"""Boundary IoU: how well the contours of the classes are met (Cheng et al., arXiv:2103.16562).

The boundary region of a class is the set of its pixels that lie at most ``d`` pixels inside its
contour. The boundary IoU of the class is the intersection of the regions of truth and prediction
over their union, both counted over all images, as those of the IoU are. It weighs the inside of
large objects less than the IoU does.

- ``d`` is a share of the image's diagonal, 0.02 in the paper, rounded, and at least one pixel.
- Distances are those of a chessboard. The edge of the image is a contour.
- Pixels without a truth (255) are taken out of both maps before any contour is found. So they are
  not counted, their edge is a contour of both maps, and what was predicted there has no effect: a
  prediction that equals the truth wherever there is one has a boundary IoU of 1.

One erosion and one dilation find the contours of all classes of a map: a pixel is near a contour
of its class where the square of ``2 d + 1`` pixels around it holds a second label.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from jaxtyping import Bool, Int64, UInt8

from wsss.labels.ignore import IGNORED
from wsss.score.metrics.image_counts import BoundaryTable, ImageCounts


class BoundaryCounts:
    """Pixels of boundary regions by class: in both maps, in the truth, in the prediction.

    Args:
        labels: number of labels, background included.
        ratio: ``d`` as a share of the image's diagonal.
    """

    def __init__(self, labels: int, ratio: float) -> None:
        self.labels = labels
        self.ratio = ratio
        self.counts: Int64[np.ndarray, "3 labels"] = np.zeros((3, labels), np.int64)
        """Pixels hit, true and predicted of each label."""
        self.images = ImageCounts(labels, BoundaryTable)

    def regions(
        self, truth: UInt8[np.ndarray, "h w"], prediction: UInt8[np.ndarray, "h w"]
    ) -> UInt8[np.ndarray, "h w"]:
        """Which boundary regions each pixel lies in.

        Args:
            truth: labels and 255.
            prediction: labels; those where the truth is 255 have no effect.

        Returns:
            0 none, 1 that of its true label, 2 that of its predicted label, 3 both.
        """
        visible = np.where(truth == IGNORED, truth, prediction)
        height, width = truth.shape
        distance = boundary_distance(height, width, self.ratio)
        near_true, near_predicted = (
            near_contour(m, distance).view(np.uint8) for m in (truth, visible)
        )
        return near_true | near_predicted << 1

    def add(self, counts: Int64[np.ndarray, "4 labels labels"], image: str = "") -> None:
        """Add one image.

        Args:
            counts: pixels, [what `regions` gives, true label, predicted label].
            image: id under which its counts are also stored by themselves; empty: they are not.
        """
        hit = np.diag(counts[3])
        true = (counts[1] + counts[3]).sum(axis=1)
        predicted = (counts[2] + counts[3]).sum(axis=0)
        of_image = np.stack([hit, true, predicted])
        self.counts += of_image
        if image:
            self.images.add(image, of_image)

    def merge(self, other: BoundaryCounts) -> None:
        """Add the counts of another part."""
        self.counts += other.counts
        self.images.merge(other.images)


def boundary_distance(height: int, width: int, ratio: float) -> int:
    """The width of boundary regions in pixels.

    Args:
        height: of the image, pixels.
        width: of the image, pixels.
        ratio: share of its diagonal.
    """
    return max(1, round(ratio * math.hypot(height, width)))


def near_contour(labels: UInt8[np.ndarray, "h w"], distance: int) -> Bool[np.ndarray, "h w"]:
    """Where a pixel lies at most ``distance`` pixels inside the contour of its label."""
    square = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
    near: Bool[np.ndarray, "h w"] = cv2.erode(labels, square) != cv2.dilate(labels, square)
    near[:distance] = near[-distance:] = True
    near[:, :distance] = near[:, -distance:] = True
    return near
