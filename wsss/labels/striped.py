"""The prediction of a large photo from probabilities that come in stripes of rows."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from wsss.config.labels import CrfConfig
from wsss.labels.crf import bounded
from wsss.labels.prediction import Candidates, Prediction, crf_ids, label_maps
from wsss.labels.upsample import RunningShrink, upsample

Stripes = Iterable[tuple[slice, Float[Tensor, "labels rows width"]]]
"""Rows, from the top to the bottom, and the probabilities there."""
Labels = UInt8[np.ndarray, "height width"]
Confidence = Float32[np.ndarray, "height width"]


def striped_labels(
    stripes: Stripes,
    image: UInt8[np.ndarray, "height width 3"],
    labels: int,
    crf: CrfConfig | None,
) -> tuple[Labels, Confidence]:
    """The most likely label of every pixel and its probability.

    With a CRF the probabilities of all labels are held at the size at which it runs, and the
    confidence is read there.

    Args:
        stripes: cover the image.
        image: RGB.
        labels: number of them.
        crf: refines the probabilities; None: no CRF.
    """
    size = image.shape[:2]
    likely, confidence = np.empty(size, np.uint8), np.empty(size, np.float32)
    small = None if crf is None else bounded(image, crf)[0].shape[:2]
    shrunk = None if small is None else RunningShrink(labels, size, small)
    peak = np.zeros(labels, np.float32)
    for rows, probs in stripes:
        likely[rows] = probs.argmax(0).cpu().numpy()
        confidence[rows] = probs.amax(0).cpu().numpy()
        if shrunk is not None:
            peak = np.maximum(peak, probs.amax((1, 2)).cpu().numpy())
            shrunk.add(rows, probs.cpu().numpy())
    if crf is None or shrunk is None:
        return likely, confidence
    ids = crf_ids(peak, likely, "candidates")
    planes = shrunk.maps[list(ids)]
    del shrunk
    refined = label_maps(Prediction(image, {"label": Candidates(likely, ids, planes)}), crf)
    after = refined["label_crf"]
    for label, plane in zip(ids, planes, strict=True):
        where = after == label
        if where.any():
            confidence[where] = upsample(plane[None], size)[0][where]
    return after, confidence
