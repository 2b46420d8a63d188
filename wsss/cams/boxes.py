"""Box masks: the rectangles around the strong parts of class maps (CLIP-ES).

Eq. 18 of docs/methods/clip-es.md.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wsss.compute.packed_rows import to_device

BoxEdge = Literal["inclusive", "exclusive"]


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
    # One below the other in one image; an empty line between maps keeps their parts apart.
    strong = np.zeros((rows, height + 1, width), dtype=np.uint8)
    strong[:, :height] = levels > limits[:, None, None]
    image = strong.reshape(-1, width)  # (rows height+1) width
    _, _, parts, _ = cv2.connectedComponentsWithStats(image, connectivity=8)
    inside = np.zeros((rows, height, width), dtype=bool)
    cut = 1 if edge == "exclusive" else 0
    for left, line, box_width, box_height, _ in parts[1:].tolist():  # the first is the rest
        row, top = divmod(line, height + 1)
        bottom, right = min(top + box_height, height - cut), min(left + box_width, width - cut)
        inside[row, top:bottom, left:right] = True
    return to_device(torch.from_numpy(inside), maps.device)
