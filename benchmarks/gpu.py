"""Speed on a GPU, in one command of some minutes: `python -m benchmarks.gpu --json gpu.json`.

With random weights of ViT-B/16, in float32, in TF32 and with the encoder's weights in bfloat16:

- CAMs: images per second of the stage, 375 x 500 pixels, 1.5 tags;
- a training step of WeCLIP and ExCEL (batch 4 x 320) and of WeakCLIP (batch 16 x 512), with the
  optimiser;
- pixel-adaptive refinement of a batch;
- prediction: photos per second of WeCLIP at the configured scales, up to the label map.

Waits and launches are counted on a pretended GPU, which needs none. A model of an A100 turns them
into milliseconds. A launch takes 8 µs on the host. On the card it takes 3 µs and the longer of two
times: that of its products (14 T operations per second in float32, 80 T in TF32) and that of its
memory (1.5 TB/s). The host runs ahead of the card up to the next wait. CRFs and the decoding of
photos are left out. ``--pretend`` gives these figures alone. The others are medians of interleaved
rounds; the file also names card, driver and torch.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
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
from tests.gpu.pretend import PretendGpu, Work
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
_RATES = {"float32": 14e12, "tf32": 80e12}
_MEMORY_RATE = 1.5e12
_ON_CARD, _ON_HOST = 3e-6, 8e-6


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
        figures["counts"] |= other_counts(folder, options.model)
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


def counts(folder: Path, model: str, method: str) -> dict[str, float]:
    """Waits, launches and the model's time of the second step on a pretended GPU; prints them."""
    config = configuration(model, method)
    if method != "weakclip":
        gpu = _second_step(folder, config, BATCH)
        return _figures(gpu, gpu.work, f"step, {method}")
    # One crop more adds the same work each time; 16 would not fit here.
    one, gpu = (_second_step(folder, config, batch) for batch in (1, 2))
    more = _WEAKCLIP_BATCH - 1
    work = [
        Work(a.flops + more * (b.flops - a.flops), a.bytes + more * (b.bytes - a.bytes), b.waits)
        for a, b in zip(one.work, gpu.work, strict=True)
    ]
    return _figures(gpu, work, f"step, {method}")


def other_counts(folder: Path, model: str) -> dict[str, dict[str, float]]:
    """The same of what is no step, per image or photo; prints them."""
    figures = {}
    with PretendGpu() as gpu:
        tasks, units = _other_tasks(folder, configuration(model, "weclip"), images=16, photos=2)
        for name, task in tasks.items():
            gpu.clear()
            task()
            figures[name] = _figures(gpu, gpu.work, name, units.get(name, 1))
    return figures


def _second_step(folder: Path, config: Config, batch: int) -> PretendGpu:
    with PretendGpu() as gpu:
        step = training_step(folder, config, batch)
        step()
        gpu.clear()
        step()
    return gpu


def _figures(gpu: PretendGpu, work: Sequence[Work], name: str, units: int = 1) -> dict[str, float]:
    kinds = ("waits", "launches", "uploads", "downloads")
    figures: dict[str, float] = {kind: getattr(gpu, kind).total() / units for kind in kinds}
    print(f"{name}: " + ", ".join(f"{value:g} {kind}" for kind, value in figures.items()))
    for mode, rate in _RATES.items():
        figures[f"model_ms_{mode}"] = 1000 * _modelled(work, rate) / units
    print("  model: " + ", ".join(f"{figures[f'model_ms_{m}']:.2f} ms in {m}" for m in _RATES))
    return figures


def _modelled(work: Sequence[Work], rate: float) -> float:
    """Seconds of launches and waits on an A100."""
    host = card = 0.0
    for flops, size, waits in work:
        if size:
            host += _ON_HOST
            card = max(card, host) + _ON_CARD + max(flops / rate, size / _MEMORY_RATE)
        if waits:
            host = max(host, card)
    return max(host, card)


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
    others, units = _other_tasks(folder, configuration(model, "weclip", mode), 32, 8)
    return {
        name: statistics.median(values) / units.get(name, 1)
        for name, values in interleaved(tasks | others, rounds).items()
    }


def _other_tasks(
    folder: Path, config: Config, images: int, photos: int
) -> tuple[dict[str, Callable[[], object]], dict[str, int]]:
    """What is no step, and the images or photos of those that process several."""
    template = config.clip.model_copy(update={"template": [TEMPLATE]})
    config = config.model_copy(update={"clip": template})
    source = make_source(class_list("voc"), folder, **STAGES["cams"].arguments(config))
    samples = _samples(folder, [1, 2] * (images // 2))
    crops = torch.rand(BATCH, 3, CROP, CROP).to("cuda")
    masks = torch.rand(BATCH, 3, CROP, CROP).to("cuda")
    refiner = build(folder, config)
    refiner.train_mode(False)
    random = np.random.default_rng(0)
    pixels = [random.integers(0, 256, (375, 500, 3), np.uint8) for _ in range(photos)]

    def predict() -> None:
        for photo in pixels:
            for probs in refiner.probabilities(photo).values():
                probs.argmax(0).to(torch.uint8).cpu()

    tasks: dict[str, Callable[[], object]] = {
        "CAMs, per image": lambda: list(source.maps(samples)),
        "PAR, per batch": lambda: pixel_adaptive_refinement(crops, masks),
        "prediction, per photo": predict,
    }
    return tasks, {"CAMs, per image": images, "prediction, per photo": photos}


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
