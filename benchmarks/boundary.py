"""What the boundary IoU costs: processor time of counting with and without it.

Invented images of 375 x 500 pixels with VOC's 21 labels: truth in PNGs, products in a shard, read
from disk as `wsss score` reads them. One process; both alternatives in every round, the first in
turn.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from wsss.artifacts.provenance import Provenance
from wsss.artifacts.shard import Item, ShardWriter
from wsss.config.labels import BackgroundConfig
from wsss.data.images.label_png import save_label_png
from wsss.score.metrics.counting import Image, Part, counter
from wsss.score.product import PRODUCTS, ProductName
from wsss.score.truth.sources import PngTruth

HEIGHT, WIDTH, LABELS = 375, 500, 21
RATIO = 0.02
PROTOCOLS = ("single", "multi", "single_crf", "multi_crf")
SCORED: tuple[ProductName, ...] = ("cam", "masks", "segmenter")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=32, help="(default: 32)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: 5)")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print("| product | label maps per image | ms per image | of these the boundary IoU |")
    print("|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for product in SCORED:
            part = invented(Path(folder), product, options.images)
            seconds: dict[float, list[float]] = {0.0: [], RATIO: []}
            tasks: dict[float, Callable[[], object]] = {
                ratio: partial(counter(product, LABELS, BackgroundConfig(), PROTOCOLS, ratio), part)
                for ratio in seconds
            }
            for index in range(-1, options.rounds):
                for ratio in sorted(tasks, reverse=bool(index % 2)):
                    start = time.process_time()
                    tasks[ratio]()
                    if index >= 0:
                        seconds[ratio].append(time.process_time() - start)
            whole = statistics.median(seconds[RATIO])
            added = [
                with_it - bare for with_it, bare in zip(seconds[RATIO], seconds[0.0], strict=True)
            ]
            maps = len(PROTOCOLS) if product == "segmenter" else 1
            print(
                f"| {product} | {maps} | {1000 * whole / options.images:.1f} | "
                f"{100 * statistics.median(added) / whole:.0f} % |"
            )


def invented(folder: Path, product: ProductName, images: int) -> Part:
    """A shard of the product, and truths next to it."""
    rng = np.random.default_rng(0)
    listed, items = [], []
    for index in range(images):
        name = f"{product}-{index}"
        classes = np.sort(rng.choice(LABELS - 1, 1 + index % 3, replace=False)).tolist()
        scores = smooth(rng, len(classes))
        truth = labelled(scores, classes, 0.6)
        contour = cv2.morphologyEx(truth, cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8)) > 0
        truth[contour] = 255
        save_label_png(folder / f"{name}.png", truth)
        source = PngTruth(folder, f"{name}.png")
        listed.append(Image(name, HEIGHT, WIDTH, tuple(classes), source))
        if product == "cam":
            small = [cv2.resize(plane, (31, 23)) for plane in scores]
            arrays = {"cam": np.stack(small).astype(np.float16)}
        else:
            names = PROTOCOLS if product == "segmenter" else ("label", "train")
            arrays = {key: labelled(scores, classes, 0.5 + 0.05 * n) for n, key in enumerate(names)}
        items.append(Item(name, arrays, {"classes": classes}))
    path = folder / f"{product}.h5"
    provenance = Provenance(stage="benchmark", config={}, seed=0, code="", packages={})
    ids, kind = [item.id for item in items], PRODUCTS[product].shards
    with ShardWriter(path, kind=kind, ids=ids, provenance=provenance) as writer:
        for item in items:
            writer.add(item)
    return Part(path, tuple(listed))


def smooth(rng: np.random.Generator, classes: int) -> Float32[np.ndarray, "classes h w"]:
    """Random blobs in 0 … 1."""
    coarse = rng.random((classes, 6, 8), dtype=np.float32)
    return np.stack(
        [cv2.resize(plane, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR) for plane in coarse]
    )


def labelled(
    scores: Float32[np.ndarray, "classes h w"], classes: list[int], threshold: float
) -> UInt8[np.ndarray, "h w"]:
    """The class with the largest score, or background below a threshold."""
    winner = np.array(classes, np.uint8)[scores.argmax(axis=0)] + 1
    return np.where(scores.max(axis=0) > threshold, winner, 0).astype(np.uint8)


if __name__ == "__main__":
    main()
