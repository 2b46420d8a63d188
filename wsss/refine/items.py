"""Items of the shards that refiners write, and what their keys hold."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from wsss.artifacts.digest import digest_json
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.provenance import Provenance
from wsss.artifacts.shard import Item
from wsss.data.manifest import Sample
from wsss.refine.base import Refiner, Scores
from wsss.refine.inputs import ImageCams


def identity(sample: Sample) -> list[Any]:
    """What tells an image apart from every other one."""
    return [sample.id, sample.digest, list(sample.tags)]


def refiner_key(provenance: Provenance, refiner: Refiner[Any]) -> str:
    """Digest of all that a refiner's result depends on, but the image."""
    return digest_json([provenance.key(), asdict(refiner.setup.classes), refiner.texts()])


def scores_item(image: ImageCams, scores: Scores, key: str, split: str) -> Item:
    """The item of an image's scores, after a check of their shape and values.

    Raises:
        ArtifactError: they are no scores in 0 … 1, one for each class.
    """
    name, maps = image.sample.id, scores.classes
    classes = image.classes if scores.ids is None else scores.ids
    if maps.ndim != 3 or len(maps) != len(classes):
        raise ArtifactError(
            f"{name!r}: the refiner gave scores of shape {maps.shape} for the classes "
            f"{list(classes)}; expected one map each"
        )
    arrays = {"score": maps}
    if scores.background is not None:
        arrays["background"] = scores.background
    for array in arrays.values():
        if array.size and not (array.min() >= 0 and array.max() <= 1):  # false for NaN, too
            raise ArtifactError(
                f"{name!r}: the refiner gave scores from {array.min()} to {array.max()}; expected "
                "0 … 1"
            )
    attrs = {
        "classes": list(classes),
        "grid": list(maps.shape[1:]),
        "size": [image.sample.height, image.sample.width],
        "split": split,
    }
    stored = {kind: array.astype(np.float16, copy=False) for kind, array in arrays.items()}
    return Item(name, stored, attrs, key)
