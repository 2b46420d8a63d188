"""What can be scored: the products of a chain, and the protocols of a prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ProductName = Literal[
    "blob",
    "cam",
    "affinity",
    "seeds",
    "refiner_scores",
    "masks",
    "refiner_prediction",
    "segmenter",
]
Protocol = Literal["single", "multi", "single_crf", "multi_crf"]
"""One scale, or several and mirrored; perhaps refined by a dense CRF."""
SHOWN_FIRST: tuple[Protocol, ...] = ("multi", "single", "multi_crf", "single_crf")
"""Pictures show the first of these that a prediction has."""


@dataclass(frozen=True)
class Product:
    """Where the arrays of a product lie, and its records."""

    file: str
    """Records lie in ``scores/<file>.<split>.json``."""
    shards: str = ""
    """Kind of the shards; empty: the product needs none."""
    array: str = ""
    """Array of class scores on the patch grid; empty: the product holds label maps."""


PRODUCTS: dict[ProductName, Product] = {
    "blob": Product("blob"),
    "cam": Product("cam", "cams", "cam"),
    "affinity": Product("affinity", "cams", "cam_affinity"),
    "seeds": Product("seeds", "seeds"),
    "refiner_scores": Product("refined", "scores", "score"),
    "masks": Product("masks", "masks"),
    "refiner_prediction": Product("refiner", "predictions"),
    "segmenter": Product("predictions", "predictions"),
}
"""In the order in which a chain makes them."""
HAS_THRESHOLD: tuple[ProductName, ...] = ("blob", "cam", "affinity", "refiner_scores")
"""Class scores: they have a second row, at the background threshold that is best on the truth."""
