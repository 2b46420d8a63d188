"""Mask proposals without SAM: connected regions of similar colour. No truth mask is opened."""

from pathlib import Path

import cv2
import numpy as np

from tests.masks.test_proposals import write
from wsss.data.images.read import read_image
from wsss.data.manifest_folder import load
from wsss.masks.proposal_files import proposal_path

_LEAST = 12  # pixels


def colour_regions(photo: np.ndarray) -> list[np.ndarray]:
    """Connected regions whose smoothed colours fall into the same of 64 bins."""
    smooth = cv2.medianBlur(photo, 5)
    bins = (smooth // 64).astype(int) @ np.array([16, 4, 1])
    regions = []
    for value in np.unique(bins):
        count, parts = cv2.connectedComponents((bins == value).astype(np.uint8))
        regions += [parts == part for part in range(1, count)]
    return [region for region in regions if region.sum() >= _LEAST]


def write_regions(manifest: Path, folder: Path, root: Path) -> int:
    """Write proposals of the images of a manifest, whose paths begin at ``root``; counts them."""
    samples = list(load(manifest)[0])
    for sample in samples:
        write(proposal_path(folder, sample.id), colour_regions(read_image(root / sample.path)))
    return len(samples)
