"""Time of the CAM stage, as ratios in one run: `python -m benchmarks.cams`.

The stage's time includes decoding, resizing, Grad-CAM of every class, the affinity and the
conversion to half precision. It is compared with

- the bare encoder: a forward pass over the same images that does nothing else, in the fastest of
  several ways (open_clip's own, one image at a time, one per thread, batched; and our encoder's);
- a straightforward loop: one image, one class at a time, autograd through the last block for each
  class, Sinkhorn matrices and their square built for each class. A second row lets it form the
  gradients of the block's weights as well, as the published code does.

The texts of VOC's classes and backgrounds, which a run encodes once, are compared with open_clip's
text tower in one batch.

Rounds are interleaved; medians are printed, with the smallest and largest ratio of a round. Images
are synthetic, of VOC's usual 375 x 500 pixels.

`--real` measures instead what bfloat16 weights do to the IoU on real photographs.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.baselines import bare_encoders, simple_cams
from benchmarks.settings import for_photographs
from benchmarks.timing import Times, interleaved, ratios
from wsss.artifacts.digest import digest_file
from wsss.artifacts.stage import STAGES
from wsss.cams.stage import make_source
from wsss.clip.images import input_size, normalize_image, resize_image
from wsss.clip.layers import native_bfloat16
from wsss.clip.load import LoadedClip, load_clip
from wsss.clip.text.embeddings import encode_words, text_bank
from wsss.config.model import Config
from wsss.data.datasets.classes import class_list
from wsss.data.images.read import read_image
from wsss.data.manifest import Sample

HEIGHT, WIDTH = 375, 500
TEMPLATE = "a clean origami {}."


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=4, help="images per round, even (default: 4)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: 5)")
    parser.add_argument(
        "--model",
        default="ViT-B-16-quickgelu",
        help="open_clip model, random weights (default: %(default)s)",
    )
    parser.add_argument(
        "--real", action="store_true", help="IoU with bfloat16 weights instead of time"
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns about random weights
    with tempfile.TemporaryDirectory() as folder:
        if options.real:
            from benchmarks.real import compare_precisions

            figures = compare_precisions(Path(folder))
        else:
            figures = measure(Path(folder), options.model, options.images, options.rounds)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def measure(folder: Path, model: str, images: int, rounds: int) -> dict[str, Any]:
    """All timings; prints the table."""
    classes = class_list("voc")
    clip = load_clip(model, "random")
    visual: Any = clip.model.visual
    bank = text_bank(clip, classes.prompts, classes.backgrounds, [TEMPLATE], cache_dir=folder)
    exact, rounded = (
        make_source(classes, folder, **STAGES["cams"].arguments(_config(model, precision)))
        for precision in ("float32", "bfloat16")
    )
    mixed = _samples(folder, [1, 2] * max(1, images // 2))
    three = _samples(folder, [3] * len(mixed))

    def pixels(sample: Sample) -> Tensor:
        size = input_size(sample.height, sample.width, visual.patch_size)
        photo = resize_image(read_image(sample.path, digest=sample.digest), size)
        return normalize_image(photo, clip.mean, clip.std)[None]

    def loop(weight_gradients: bool) -> list[Tensor]:
        return [
            simple_cams(clip.model, pixels(s), s.tags, bank, weight_gradients=weight_gradients)
            for s in three
        ]

    bare = bare_encoders(clip.model, [pixels(sample) for sample in mixed])
    tasks: dict[str, Callable[[], object]] = {
        **bare,
        "stage, 1.5 tags": lambda: list(exact.maps(mixed)),
        "stage, 3 tags": lambda: list(exact.maps(three)),
        "stage, 3 tags, bfloat16 weights": lambda: list(rounded.maps(three)),
        "loop, 3 tags": lambda: loop(False),
        "loop with weight gradients, 3 tags": lambda: loop(True),
    }
    seconds = interleaved(tasks, rounds)
    times = {name: [value / len(mixed) for value in values] for name, values in seconds.items()}
    figures = _report(times, list(bare))
    words = [*classes.prompts, *classes.backgrounds]
    return figures | {"texts": _measure_texts(clip, words, rounds)}


def _measure_texts(clip: LoadedClip, words: list[str], rounds: int) -> list[float]:
    """Time of open_clip's text tower, as a ratio to ours."""
    prompts = [TEMPLATE.replace("{}", word) for word in words]

    @torch.no_grad()
    def one_batch() -> Tensor:
        return clip.model.encode_text(clip.tokenize(prompts))  # type: ignore[operator]

    times = interleaved(
        {"open_clip": one_batch, "wsss": lambda: encode_words(clip, words, [TEMPLATE])}, rounds
    )
    values = ratios(times["open_clip"], times["wsss"])
    print(f"\n  open_clip's text tower / ours, {len(words)} texts {_median_and_range(values)}")
    return values


def _report(times: Times, encoders: list[str]) -> dict[str, Any]:
    print("seconds per image (median; smallest … largest)")
    for name, values in times.items():
        print(f"  {name:45}{_median_and_range(values)}")
    fastest = min(encoders, key=lambda name: statistics.median(times[name]))
    pairs = {
        "stage / encoder, 1.5 tags (goal: at most 1.12)": ("stage, 1.5 tags", fastest),
        "stage / encoder, 3 tags (goal: at most 1.18)": ("stage, 3 tags", fastest),
        "loop / stage, 3 tags (goal: at least 1.7)": ("loop, 3 tags", "stage, 3 tags"),
        "  … loop with weight gradients, as published": (
            "loop with weight gradients, 3 tags",
            "stage, 3 tags",
        ),
        "loop / stage, bfloat16 (goal: at least 3.2)": (
            "loop, 3 tags",
            "stage, 3 tags, bfloat16 weights",
        ),
        "  … loop with weight gradients": (
            "loop with weight gradients, 3 tags",
            "stage, 3 tags, bfloat16 weights",
        ),
    }
    print(f"\nratio (median of the rounds; smallest … largest); encoder = {fastest}")
    by_name = {}
    for name, (above, below) in pairs.items():
        values = by_name[name.strip(" …")] = ratios(times[above], times[below])
        print(f"  {name:45}{_median_and_range(values)}")
    native = native_bfloat16(torch.device("cpu"))
    if not native:
        print(
            "\nThis CPU has no bfloat16 instructions: weights are rounded to bfloat16 and used in "
            "float32, so that row can show no gain here."
        )
    return {
        "seconds": times,
        "ratios": by_name,
        "encoder": fastest,
        "threads": torch.get_num_threads(),
        "native_bfloat16": native,
    }


def _median_and_range(values: list[float]) -> str:
    return f"{statistics.median(values):7.3f}   ({min(values):.3f} … {max(values):.3f})"


def _config(model: str, precision: str) -> Config:
    clip = {"model": model, "pretrained": "random", "precision": precision, "template": [TEMPLATE]}
    return for_photographs({"clip": clip, "compute": {"device": "cpu"}})


def _samples(folder: Path, counts: list[int]) -> list[Sample]:
    """Smooth random photographs as JPEG files, with that many tags each."""
    random = np.random.default_rng(0)
    samples = []
    for index, count in enumerate(counts):
        path = folder / f"{index}-{count}.jpg"  # the other samples lie there as well
        coarse = random.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(path)
        tags = tuple(sorted(random.choice(20, count, replace=False).tolist()))
        samples.append(Sample(str(index), "train", path, WIDTH, HEIGHT, digest_file(path), tags))
    return samples


if __name__ == "__main__":
    main()
