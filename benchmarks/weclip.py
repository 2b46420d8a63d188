"""Time of a WeCLIP training step, as ratios in one run: `python -m benchmarks.weclip`.

A step on crops that are ready, as published in size (320 pixels, batch 4, ViT-B/16, width 256,
1.5 tags a crop), is compared with what it cannot do without, measured in the same rounds:

- frozen: the encoder's forward pass over the same crops, all blocks, nothing returned but the
  features that the head fuses;
- head: the head's own forward and backward pass on ready features, with the losses.

Rounds are interleaved; medians are printed. Labels: what the step spends on CAM, affinity and
pixel-adaptive refinement beyond that, measured on its own.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch

from wsss.clip.input import EncoderInput
from wsss.config.load import from_mapping
from wsss.config.model import Config
from wsss.data.datasets.classes import class_list
from wsss.refine.blocks.frozen import encode
from wsss.refine.blocks.losses import affinity_labels, affinity_loss, balanced_cross_entropy, window
from wsss.refine.load import build_refiner
from wsss.refine.training.crops import CropBatch
from wsss.refine.weclip.method import WeClip

START = 1000  # the step from which the refinement module takes part
CROP, BATCH, GRID = 320, 4, 20
TAGS = (1, 2, 1, 2)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: 5)")
    parser.add_argument("--model", default="ViT-B-16-quickgelu", help="open_clip model")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns about random weights
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.model, options.device, options.rounds)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def configuration(model: str, device: str, variant: str, **options: str) -> Config:
    """WeCLIP at the published size."""
    return from_mapping(
        {
            "variant": variant,
            "compute": {"device": device},
            "clip": {"model": model, "pretrained": "random"},
            "refine": {
                "method": "weclip",
                "train": {"crop": CROP, "batch": BATCH},
                "weclip": {"width": 256, "rfm_start": START} | options,
            },
        }
    )


def measure(folder: Path, model: str, device: str, rounds: int) -> dict[str, Any]:
    """All timings; prints the table."""
    corrected, published = (configuration(model, device, v) for v in ("corrected", "published"))
    inputs = EncoderInput(corrected.clip, folder, device=corrected.compute.device)
    encoder, classes = inputs.encoder, class_list("voc")
    cut = configuration(model, device, "corrected", crop_visibility="image")
    configs = {"corrected": corrected, "published": published, "image CAMs cut": cut}
    refiners = {}
    for name, config in configs.items():
        refiner = build_refiner(
            inputs, classes, clip=config.clip, cams=config.cams, refine=config.refine, prompts={}
        )
        refiner.train_mode(True)
        refiners[name] = cast(WeClip, refiner)
    head, settings = refiners["corrected"].head, refiners["corrected"].options
    batch = crop_batch().to(encoder.device)
    cached = CropBatch(**vars(batch) | {"labels": _labels().to(encoder.device)})
    ready = encode(encoder, batch.images)
    near = window((GRID, GRID), settings.affinity_radius, encoder.device)

    def only_head() -> None:
        _, fused, logits = head(ready.features, ready.grid)
        assert cached.labels is not None
        pairs = affinity_labels(cached.labels, ready.grid, near)
        loss = balanced_cross_entropy(logits, cached.labels)
        (loss + 0.1 * affinity_loss(refiners["corrected"].affinity(fused), pairs)).backward()

    def step(variant: str, number: int, crops: CropBatch) -> Callable[[], None]:
        return lambda: refiners[variant].loss(number, crops)["loss"].backward()

    def labels(variant: str, *, rfm: bool) -> Callable[[], object]:
        features = refiners[variant].encode(batch, rfm=rfm)
        with torch.no_grad():
            fused = head(features.features, features.grid).fused
            affinity = refiners["corrected"].affinity(fused) if rfm else None
        return lambda: refiners[variant].pseudo_labels(batch, features, affinity)

    tasks: dict[str, Callable[[], object]] = {
        "frozen": lambda: encoder.run(batch.images, outputs_of=range(encoder.depth - 1)),
        "head": only_head,
        "step, corrected, before the refinement module": step("corrected", 0, batch),
        "step, corrected, with it": step("corrected", START, cached),
        "step, image CAMs cut, before the refinement module": step("image CAMs cut", 0, cached),
        "step, image CAMs cut, with it": step("image CAMs cut", START, batch),
        "step, published, before the refinement module": step("published", 0, batch),
        "step, published, with it": step("published", START, batch),
        "labels, corrected, before": labels("corrected", rfm=False),
        "labels, corrected, with it": labels("corrected", rfm=True),
        "labels, image CAMs cut, with it": labels("image CAMs cut", rfm=True),
        "labels, published, before": labels("published", rfm=False),
        "labels, published, with it": labels("published", rfm=True),
    }
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(-1, rounds):  # the first one warms up
        for name, task in tasks.items():
            _wait(encoder.device)
            start = time.perf_counter()
            task()
            _wait(encoder.device)
            if number >= 0:
                times[name].append(time.perf_counter() - start)
    return _report(times, str(encoder.device))


def _report(times: dict[str, list[float]], device: str) -> dict[str, Any]:
    seconds = {name: statistics.median(values) for name, values in times.items()}
    print(f"{device}, {torch.get_num_threads()} threads; medians\n")
    print("| | s | / (frozen + head) | / (1.5 frozen + head), goal 1 |\n|---|---:|---:|---:|")
    for name, value in seconds.items():
        rounds = range(len(times[name]))
        bare = [times["frozen"][r] + times["head"][r] for r in rounds]
        goal = [1.5 * times["frozen"][r] + times["head"][r] for r in rounds]
        cells = ["", ""]
        if name.startswith("step"):
            cells = [
                f"{statistics.median(times[name][r] / below[r] for r in rounds):.2f}"
                for below in (bare, goal)
            ]
        print(f"| {name} | {value:.3f} | {cells[0]} | {cells[1]} |")
    print("\nshare of the labels in the step (goal: 0.33)")
    for name, value in seconds.items():
        if name.startswith("labels"):
            before = name.endswith("before")
            step = name.replace("labels", "step") + (" the refinement module" if before else "")
            print(f"  {name.removeprefix('labels, ')}: {value / seconds[step]:.2f}")
    print("  image CAMs cut, before: 0 (made once, cached)")
    return {"device": device, "seconds": times}


def crop_batch() -> CropBatch:
    random = torch.Generator().manual_seed(0)
    image_index = torch.repeat_interleave(torch.arange(BATCH), torch.tensor(TAGS))
    rows = len(image_index)
    smooth = torch.rand(BATCH, 3, 40, 40, generator=random)
    images = torch.nn.functional.interpolate(smooth, (CROP, CROP), mode="bicubic")
    return CropBatch(
        images=images,
        valid=torch.ones(BATCH, CROP, CROP, dtype=torch.bool),
        labels=None,
        image_index=image_index,
        classes=torch.arange(rows) % 20,
        probabilities=torch.full((rows,), 0.5),
        initial=torch.rand(rows, GRID, GRID, generator=random),
        maps=torch.rand(rows, GRID, GRID, generator=random),
    )


def _labels() -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.randint(0, 3, (BATCH, CROP, CROP), generator=random).to(torch.uint8)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
