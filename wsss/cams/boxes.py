"""Box masks: the rectangles around the strong parts of class maps (CLIP-ES).

Eq. 18 of docs/methods/clip-es.md.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from wsss.compute.packed_rows import to_device

BoxEdge = Literal["inclusive", "exclusive"]

# Neighbours inside a map, corners included; none between maps of the stack.
_CONNECTED = np.stack([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))])


def box_masks(
    maps: Float[Tensor, "rows height width"], threshold: float, edge: BoxEdge = "inclusive"
) -> Bool[Tensor, "rows height width"]:
    """Union of the bounding boxes of each map's connected parts above a threshold.

    As published, values are truncated to 8 bits, and parts lie strictly above the integer part of
    ``threshold`` times the largest 8-bit value. The boxes of connected parts (corners
    connect) have the same union as those of all contours: a hole's box lies inside its part's.
    All maps are labelled in one call.

    Args:
        maps: values in [0, 1].
        threshold: share of the maximum, 0.4 for VOC and 0.7 for COCO.
        edge: ``inclusive`` fills the whole box. ``exclusive`` is the published off-by-one: right
            and bottom edges are cut to the size minus one and then left out, so the last row and
            column of the grid are in no box, and a part that lies only there gets none.

    Returns:
        True inside a box; a map without values above 0 has none.
    """
    rows, height, width = maps.shape
    if rows == 0:
        return torch.zeros_like(maps, dtype=torch.bool)
    levels = (maps * 255).to(torch.uint8).cpu()  # the only wait for a GPU
    limits = (levels.flatten(1).amax(1).double() * threshold).floor()
    strong = (levels > limits[:, None, None]).numpy()
    labels, _ = ndimage.label(strong, structure=_CONNECTED)
    inside = np.zeros((rows, height, width), dtype=bool)
    cut = 1 if edge == "exclusive" else 0
    for row, y, x in ndimage.find_objects(labels):
        inside[row, y.start : min(y.stop, height - cut), x.start : min(x.stop, width - cut)] = True
    return to_device(torch.from_numpy(inside), maps.device)
