"""Measures how well the demo's CLIP names what is in the held-out scenes, without any training."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tools.demo_clip.model import (
    PATCH,
    WEIGHTS,
    build,
    encode_image,
    encode_text,
    normalise,
    tokenize,
)
from wsss.data.datasets.words import DEMO_NAMES

PROMPT: Final = "a clean origami {}."

Measures = dict[str, float | int | dict[str, float]]


def average_precision(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Return the mean, over the true items, of the precision at their rank; nan without any."""
    if not truth.any():
        return float("nan")
    hit = truth[np.argsort(-scores, kind="stable")]
    precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
    return float(precision[hit].mean())


def load_image(path: Path) -> Tensor:
    """Return ``(1, 3, height, width)`` normalised, sides at the nearest multiple of the patch."""
    with Image.open(path) as picture:
        image = picture.convert("RGB")
    sides = [max(PATCH, round(side / PATCH) * PATCH) for side in image.size]
    image = image.resize((sides[0], sides[1]), Image.Resampling.BICUBIC)
    return normalise(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None])


@torch.no_grad()
def zero_shot_map(
    model: Path | str | Any = WEIGHTS, root: Path | str = ".", split: str = "val"
) -> Measures:
    """Score every class on every image of a demo folder and compare with its tags.

    Args:
        model: a file of weights, or a model from `tools.demo_clip.model.build`.
        root: a folder made by `wsss.demo.dataset.generate`.
        split: name of a list below ``ImageSets/Segmentation``.

    Returns:
        ``map`` (class token) and ``patch_map`` (mean of patches), 0..1, the mean over classes that
        occur; ``per_class`` average precision of the class token; ``images``, their number.

    Raises:
        FileNotFoundError: if the weights, the list, the tags or an image is missing.
    """
    root = Path(root)
    network = build(Path(model)) if isinstance(model, Path | str) else model
    names = (
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").read_text(encoding="utf-8").split()
    )
    with (root / "tags.csv").open(encoding="utf-8", newline="") as lines:
        tags = {row["image"]: row["tags"].split(";") for row in csv.DictReader(lines)}
    truth = np.array([[c in tags[name] for c in DEMO_NAMES] for name in names])
    texts = encode_text(network, tokenize([PROMPT.format(c) for c in DEMO_NAMES]))
    whole, mean = [], []
    for name in names:
        by_token, by_patches = encode_image(
            network, load_image(root / "JPEGImages" / f"{name}.jpg")
        )
        whole.append((by_token @ texts.T)[0].double().numpy())
        mean.append((by_patches @ texts.T)[0].double().numpy())
    per_class = _per_class(np.array(whole), truth)
    per_class_mean = _per_class(np.array(mean), truth)
    return {
        "images": len(names),
        "map": float(np.nanmean(list(per_class.values()))),
        "patch_map": float(np.nanmean(list(per_class_mean.values()))),
        "per_class": per_class,
    }


def _per_class(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> dict[str, float]:
    pairs = enumerate(DEMO_NAMES)
    return {name: average_precision(scores[:, k], truth[:, k]) for k, name in pairs}
