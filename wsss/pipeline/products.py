"""What a run consists of: its products, what of them is scored, and its tables."""

from __future__ import annotations

from dataclasses import dataclass

from wsss.score.product import ProductName


@dataclass(frozen=True)
class Product:
    """A folder of a run: the stage that fills it, and the folders that it is made from."""

    stage: str
    inputs: tuple[str, ...] = ()


PRODUCTS: dict[str, Product] = {
    "manifest": Product("ingest"),
    "truth_masks": Product("truth_masks", ("manifest",)),
    "corrected_masks": Product("corrected_masks", ("manifest",)),
    "noisy_tags": Product("tag_noise", ("manifest",)),
    "cams": Product("cams", ("noisy_tags",)),
    "seeds": Product("seeds", ("cams",)),
    "refine": Product("refine_train", ("cams", "seeds")),
    "scores_grid": Product("refine_apply", ("refine",)),
    "refiner_predictions": Product("refine_predict", ("refine",)),
    "masks": Product("masks", ("scores_grid",)),
    "segmenter": Product("retrain", ("masks",)),
    "predictions": Product("predict", ("segmenter",)),
}
"""By the folder's name, in the order in which data walks through them."""

SCORED: dict[ProductName, str] = {
    "blob": "noisy_tags",
    "cam": "cams",
    "affinity": "cams",
    "seeds": "seeds",
    "refiner_scores": "scores_grid",
    "masks": "masks",
    "refiner_prediction": "refiner_predictions",
    "segmenter": "predictions",
}
"""The folder of each product that is scored; its records lie in the run that has the folder."""
RUN_TABLES = ("table", "classes", "pairs")
"""Tables that are made from all records of a run."""


def table_paths(name: str, table: str) -> list[str]:
    """A table of a run in all its forms."""
    return [f"results/{name}/tables/{table}.{suffix}" for suffix in ("md", "csv", "html")]
