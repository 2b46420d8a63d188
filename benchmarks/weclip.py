"""Time of a WeCLIP training step, as ratios in one run: `python -m benchmarks.weclip`.

A step on crops that are ready, at the published size (320 pixels, batch 4, ViT-B/16, width 256,
1.5 tags per crop), is compared with the parts that it cannot do without, in the same rounds:

- frozen: the encoder's forward pass over the same crops, all blocks; it returns only the features
  that the head fuses;
- head: the head's own forward and backward pass on ready features, with the losses.

Rounds are interleaved; medians are printed. The labels, what a step spends on CAM, affinity and
pixel-adaptive refinement, are also measured separately.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.refiners import BATCH, CROP, crop_batch, encoder_input, refiner_setup
from benchmarks.settings import for_photographs
from benchmarks.timing import Times, interleaved, median_ratio
from wsss.config.model import Config
from wsss.data.datasets.classes import class_list
from wsss.refine.blocks.frozen import encode
from wsss.refine.training.crops import CropBatch
from wsss.refine.weclip.method import WeClip

START = 1000  # the step from which the refinement module takes part


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
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def configuration(model: str, device: str, variant: str, **options: Any) -> Config:
    """WeCLIP at the published size."""
    return for_photographs(
        {
            "variant": variant,
            "compute": {"device": device},
            "clip": {"model": model, "pretrained": "random"},
            "refine": {
                "method": "weclip",
                "train": {"crop": CROP, "batch": BATCH},
                "weclip": {"width": 256, "rfm_start": START, **options},
            },
        }
    )


def measure(folder: Path, model: str, device: str, rounds: int) -> dict[str, Any]:
    """All timings; prints the table."""
    configs = {
        "corrected": configuration(model, device, "corrected"),
        "published": configuration(model, device, "published"),
        "image CAMs cut": configuration(model, device, "corrected", crop_visibility="image"),
    }
    inputs, classes = encoder_input(configs["corrected"], folder), class_list("voc")
    encoder = inputs.encoder
    refiners = {
        name: WeClip(refiner_setup(config, inputs, classes, folder))
        for name, config in configs.items()
    }
    for refiner in refiners.values():
        refiner.train_mode(True)
    batch = crop_batch().to(encoder.device)
    labelled = replace(batch, labels=_labels().to(encoder.device))
    features = encode(encoder, batch.images)

    def only_head() -> None:
        refiner = refiners["corrected"]
        _, fused, logits = refiner.head(features.features, features.grid)
        assert labelled.labels is not None
        parts = (logits, labelled.labels, refiner.affinity(fused), labelled.labels)
        refiner.losses(*parts)["loss"].backward()

    def step(variant: str, index: int, crops: CropBatch) -> Callable[[], None]:
        return lambda: refiners[variant].loss(index, crops)["loss"].backward()

    def labels(variant: str, *, rfm: bool) -> Callable[[], object]:
        refiner = refiners[variant]
        with torch.no_grad():
            encoded = refiner.encode(batch, rfm=rfm)
            fused = refiner.head(encoded.features, encoded.grid).fused
            affinity = refiner.affinity(fused) if rfm else None
        return lambda: refiner.pseudo_labels(batch, encoded, affinity)

    times = interleaved(
        {
            "frozen": lambda: encoder.run(batch.images, outputs_of=range(encoder.depth - 1)),
            "head": only_head,
            "step, corrected, before the refinement module": step("corrected", 0, batch),
            "step, corrected, with it": step("corrected", START, labelled),
            "step, image CAMs cut, before the refinement module": step(
                "image CAMs cut", 0, labelled
            ),
            "step, image CAMs cut, with it": step("image CAMs cut", START, batch),
            "step, published, before the refinement module": step("published", 0, batch),
            "step, published, with it": step("published", START, batch),
            "labels, corrected, before": labels("corrected", rfm=False),
            "labels, corrected, with it": labels("corrected", rfm=True),
            "labels, image CAMs cut, with it": labels("image CAMs cut", rfm=True),
            "labels, published, before": labels("published", rfm=False),
            "labels, published, with it": labels("published", rfm=True),
        },
        rounds,
    )
    return _report(times, str(encoder.device))


def _report(times: Times, device: str) -> dict[str, Any]:
    seconds = {name: statistics.median(values) for name, values in times.items()}
    print(f"{device}, {torch.get_num_threads()} threads; medians\n")
    print("| | s | / (frozen + head) | / (1.5 frozen + head), goal 1 |\n|---|---:|---:|---:|")
    parts = list(zip(times["frozen"], times["head"], strict=True))
    for name, value in seconds.items():
        cells = ["", ""]
        if name.startswith("step"):
            sums = ([factor * frozen + head for frozen, head in parts] for factor in (1, 1.5))
            cells = [f"{median_ratio(times[name], sum_of_parts):.2f}" for sum_of_parts in sums]
        print(f"| {name} | {value:.3f} | {cells[0]} | {cells[1]} |")
    print("\nshare of the labels in the step (goal: 0.33)")
    for name, value in seconds.items():
        if name.startswith("labels"):
            before = name.endswith("before")
            step = name.replace("labels", "step") + (" the refinement module" if before else "")
            print(f"  {name.removeprefix('labels, ')}: {value / seconds[step]:.2f}")
    print("  image CAMs cut, before: 0 (computed once, cached)")
    return {"device": device, "seconds": times}


def _labels() -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.randint(0, 3, (BATCH, CROP, CROP), generator=random).to(torch.uint8)


if __name__ == "__main__":
    main()
