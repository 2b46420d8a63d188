"""Speed on a GPU, in one command of some minutes: `python -m benchmarks.gpu --json gpu.json`.

With random weights of ViT-B/16, in float32, in TF32 and with the encoder's weights in bfloat16:

- CAMs: images per second of the stage, 375 x 500 pixels, 1.5 tags;
- a training step of WeCLIP and ExCEL (batch 4 x 320) and of WeakCLIP (batch 16 x 512), with the
  optimiser;
- pixel-adaptive refinement of a batch;
- prediction: photos per second of WeCLIP at the configured scales, up to the label map.

Waits and launches of a step are counted on a pretended GPU, which needs none: ``--pretend`` gives
them alone. Medians of interleaved rounds; the file also names card, driver and torch.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import weakclip, weclip
from benchmarks.cams import TEMPLATE, _samples
from benchmarks.refiners import BATCH, CROP, crop_batch, encoder_input, refiner_setup
from benchmarks.settings import for_photographs
from benchmarks.timing import interleaved
from tests.gpu.pretend import PretendGpu
from wsss.artifacts.stage import STAGES
from wsss.cams.stage import make_source
from wsss.compute.precision import computing
from wsss.config.model import Config
from wsss.data.datasets.classes import class_list
from wsss.labels.par import pixel_adaptive_refinement
from wsss.refine.base import Refiner
from wsss.refine.load import refiner_class
from wsss.refine.training.crops import CropBatch
from wsss.refine.training.trainer import Trainer

METHODS = ("weclip", "excel", "weakclip", "weclip_plus")
MODES = ("float32", "tf32", "bf16")
_WEAKCLIP_BATCH = 16


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: 5)")
    parser.add_argument("--model", default="ViT-B-16-quickgelu", help="open_clip model")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=METHODS, help="refiners (default: all)"
    )
    parser.add_argument("--pretend", action="store_true", help="only count waits and launches")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns about random weights
    figures: dict[str, Any] = {"torch": torch.__version__, "model": options.model}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures["counts"] = {m: counts(folder, options.model, m) for m in options.methods}
        if not torch.cuda.is_available():
            print("no GPU here: nothing was timed")
        elif not options.pretend:
            figures |= machine()
            figures["times"] = {
                mode: times(folder, options.model, mode, options.methods, options.rounds)
                for mode in MODES
            }
            figures["ratios"] = ratios(figures["times"])
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def machine() -> dict[str, str]:
    """The card and its driver."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    return {"card": torch.cuda.get_device_name(), "driver": answer, "cuda": str(torch.version.cuda)}


def configuration(model: str, method: str, mode: str = "float32") -> Config:
    """A refiner at its published size; what it learns late takes part from the first step on."""
    options = {
        "weclip": {"width": 256, "rfm_start": 0},
        "excel": {"width": 256, "lvc_start": 0},
        "weakclip": {"width": 256, "channels": 256},
        "weclip_plus": {"width": 256, "self_training_start": 0},
    }
    crop, batch = (weakclip.CROP, _WEAKCLIP_BATCH) if method == "weakclip" else (CROP, BATCH)
    train = {"crop": crop, "batch": batch}
    precision = "bfloat16" if mode == "bf16" and method != "weakclip" else "float32"
    return for_photographs(
        {
            "compute": {"device": "cuda"},
            "clip": {"model": model, "pretrained": "random", "precision": precision},
            "dino": {"pretrained": "random", "precision": precision},
            "refine": {"method": method, "train": train, method: options[method]},
        }
    )


def counts(folder: Path, model: str, method: str) -> dict[str, int]:
    """Waits and launches of the second step on a pretended GPU; prints them."""
    batch = 2 if method == "weakclip" else BATCH  # on this CPU; counts do not depend on it
    with PretendGpu() as gpu:
        step = training_step(folder, configuration(model, method), batch)
        step()
        gpu.clear()
        step()
    figures = {
        name: getattr(gpu, name).total() for name in ("waits", "launches", "uploads", "downloads")
    }
    print(f"{method}: " + ", ".join(f"{value} {name}" for name, value in figures.items()))
    return figures


def training_step(folder: Path, config: Config, batch: int) -> Callable[[], object]:
    """Steps of a training: upload, losses, gradients, optimiser, curve."""
    refiner = build(folder, config)
    refiner.train_mode(True)
    crops: CropBatch
    if config.refine.method == "weakclip":
        crops = weakclip._batch(batch)
    else:
        crops = replace(crop_batch(), labels=weclip._labels())
    with tempfile.TemporaryDirectory() as work:
        trainer = Trainer[CropBatch](
            refiner.trained,
            config.refine.train,
            seed=0,
            work=Path(work),
            key="",
            description="",
            groups=refiner.parameter_groups(),
            save_memory=refiner.save_memory,  # WeakCLIP's crops need more than some cards have
        )
    if torch.cuda.is_available():
        crops = crops.pinned()
    return lambda: trainer._step(
        0, lambda i, b: refiner.loss(i, b.to(refiner.encoder.device)), crops
    )


def build(folder: Path, config: Config) -> Refiner[Any]:
    """A refiner with random weights."""
    inputs, classes = encoder_input(config, folder), class_list("voc")
    setup = refiner_setup(config, inputs, classes, folder)
    return refiner_class(config.refine.method)(setup)


def times(
    folder: Path, model: str, mode: str, methods: tuple[str, ...], rounds: int
) -> dict[str, float]:
    """Median seconds of each task in one precision; prints them."""
    with computing("cuda", "float32" if mode == "float32" else "tf32"):
        seconds = _seconds(folder, model, mode, methods, rounds)
    print(f"\n{mode}")
    for name, value in seconds.items():
        print(f"  {name:24}{1000 * value:9.2f} ms{1 / value:9.1f} per second")
    return seconds


def _seconds(
    folder: Path, model: str, mode: str, methods: tuple[str, ...], rounds: int
) -> dict[str, float]:
    tasks: dict[str, Callable[[], object]] = {}
    for method in methods:
        batch = _WEAKCLIP_BATCH if method == "weakclip" else BATCH
        tasks[f"step, {method}"] = training_step(folder, configuration(model, method, mode), batch)
    config = configuration(model, "weclip", mode)
    config = config.model_copy(
        update={"clip": config.clip.model_copy(update={"template": [TEMPLATE]})}
    )
    source = make_source(class_list("voc"), folder, **STAGES["cams"].arguments(config))
    samples = _samples(folder, [1, 2] * 16)
    tasks["CAMs, per image"] = lambda: list(source.maps(samples))
    images = torch.rand(BATCH, 3, CROP, CROP, device="cuda")
    masks = torch.rand(BATCH, 3, CROP, CROP, device="cuda")
    tasks["PAR, per batch"] = lambda: pixel_adaptive_refinement(images, masks)
    refiner = build(folder, config)
    refiner.train_mode(False)
    photos = [np.random.default_rng(i).integers(0, 256, (375, 500, 3), np.uint8) for i in range(8)]

    def predict() -> None:
        for photo in photos:
            for probs in refiner.probabilities(photo).values():
                probs.argmax(0).to(torch.uint8).cpu()

    tasks["prediction, per photo"] = predict
    units = {"CAMs, per image": len(samples), "prediction, per photo": len(photos)}
    return {
        name: statistics.median(values) / units.get(name, 1)
        for name, values in interleaved(tasks, rounds).items()
    }


def ratios(times_of: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """How many times as fast as float32; prints them."""
    print("\nas fast as float32, times")
    table = {}
    for mode in MODES[1:]:
        table[mode] = {n: times_of["float32"][n] / t for n, t in times_of[mode].items()}
        print(f"  {mode}: " + ", ".join(f"{name} {r:.2f}" for name, r in table[mode].items()))
    return table


if __name__ == "__main__":
    main()
