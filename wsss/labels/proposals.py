"""Mask proposals and the posterior of an image to labels.

Eq. 1-3 of docs/methods/sam.md. Similar rules, by overlap with pseudo labels instead of a mean
posterior: Chen et al., arXiv:2305.05803; Jiang and Yang, arXiv:2305.01275.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, UInt8

from wsss.labels.upsample import upsample


@dataclass(frozen=True)
class Proposal:
    """A mask, cut to its box."""

    box: tuple[slice, slice]
    """Rows and columns of the image."""
    inside: Bool[np.ndarray, "rows columns"]

    @property
    def area(self) -> int:
        """Pixels."""
        return int(self.inside.sum())

    @staticmethod
    def of(mask: Bool[np.ndarray, "height width"]) -> Proposal:
        """Cut a mask to its box; an empty mask has an empty box."""
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        if not len(rows):
            return Proposal((slice(0), slice(0)), mask[:0, :0])
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        return Proposal(box, mask[box].copy())


def label_means(
    posterior: Float[np.ndarray, "labels h w"],
    proposals: Sequence[Proposal],
    size: tuple[int, int],
) -> Float64[np.ndarray, "proposals labels"]:
    """Mean posterior of each label over each proposal; 0 over an empty one (eq. 1).

    Args:
        posterior: of all labels, background first; brought to ``size`` one label at a time.
        size: height and width of the image, pixels.
    """
    means = np.zeros((len(proposals), len(posterior)))
    for label in range(len(posterior)):
        plane = _plane(posterior, label, size)
        for index, proposal in enumerate(proposals):
            if proposal.inside.size:
                inside = plane[proposal.box][proposal.inside]
                means[index, label] = inside.mean(dtype=np.float64)
    return means


def relabel(
    index: UInt8[np.ndarray, "height width"],
    confidence: Float[np.ndarray, "height width"],
    posterior: Float[np.ndarray, "labels h w"],
    proposals: Sequence[Proposal],
    threshold: float,
) -> tuple[UInt8[np.ndarray, "height width"], Float[np.ndarray, "height width"]]:
    """Give the pixels of proposals the label that is the most likely over them.

    Eq. 2 and 3 of docs/methods/sam.md. A proposal whose largest mean is below the threshold changes
    nothing. Smaller proposals win over larger ones, of equal ones the later.

    Args:
        index: the most likely label of each pixel.
        confidence: its posterior.
        posterior: of all labels, background first; of any size.
        proposals: of the image; they may overlap.
        threshold: least mean posterior.

    Returns:
        The labels and the confidence after it; of a pixel that a proposal labelled, the larger one
        of its own posterior of that label and the proposal's mean.
    """
    size = (index.shape[0], index.shape[1])
    means = label_means(posterior, proposals, size)
    best: Int64[np.ndarray, " proposals"] = means.argmax(axis=1) if len(means) else np.zeros(0, int)
    index, confidence = index.copy(), confidence.copy()
    from_proposal = np.zeros(size, confidence.dtype)
    for number in sorted(range(len(proposals)), key=lambda n: -proposals[n].area):
        mean, proposal = means[number, best[number]], proposals[number]
        if mean >= threshold:
            index[proposal.box][proposal.inside] = best[number]
            from_proposal[proposal.box][proposal.inside] = mean
    labelled = from_proposal > 0
    for label in np.unique(index[labelled]):
        here = labelled & (index == label)
        own = _plane(posterior, int(label), size)[here]
        confidence[here] = np.maximum(own, from_proposal[here])
    return index, confidence


def _plane(
    posterior: Float[np.ndarray, "labels h w"], label: int, size: tuple[int, int]
) -> Float[np.ndarray, "height width"]:
    plane = posterior[label : label + 1]
    large: Float[np.ndarray, "1 height width"] = (
        plane if plane.shape[1:] == size else upsample(plane, size)
    )
    return large[0]
