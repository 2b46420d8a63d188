"""WeakCLIP's training step and inference, as ratios in one run: `python -m benchmarks.weakclip`.

At the published size: ViT-B/16 with random weights, crops of 512, width 256; photos of 375 x 500.

- step: forward, losses with the CRF, backward and AdamW on crops that are ready. `published` is the
  released recipe without its anomaly detection and its unused graph; its learning rate leaks into
  CLIP, so that both towers are run backward. `corrected` freezes CLIP. Each runs in a separate
  process, because peak memory is a process's. `frozen` is the image tower's forward pass alone,
  which every frozen recipe needs.
- inference: six scales, mirrored, windows of 512 every 341 pixels. The baseline is the released
  way: one window at a time, the texts encoded for each, probabilities of all labels at the photo's
  size. Ours encodes the texts once, batches windows and stores the image's own labels; `whole` does
  so without windows (`infer.window: null`), so that no pixel of a scale is processed twice.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.refiners import encoder_input, refiner_setup
from benchmarks.settings import for_photographs
from benchmarks.timing import interleaved, peak_memory
from wsss.cams.maps import resize_maps
from wsss.config.infer import InferConfig
from wsss.config.model import Config
from wsss.data.datasets.classes import class_list
from wsss.refine.base import Setup
from wsss.refine.inference import slide
from wsss.refine.photo_scaler import Photo, PhotoScaler
from wsss.refine.training.crops import CropBatch
from wsss.refine.weakclip.method import WeakClip

SCALES = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
PHOTO = (375, 500)
CROP, WINDOW, STRIDE = 512, 512, 341
TAGS = (2, 7)
STEPS = ("published", "corrected", "frozen")
WAYS = ("ours", "whole")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["step", "inference"])
    parser.add_argument("--rounds", type=int, default=3, help="of which the median (default: 3)")
    parser.add_argument("--batch", type=int, default=2, help="crops per step (default: 2)")
    parser.add_argument("--photos", type=int, default=2, help="inference (default: 2)")
    parser.add_argument(
        "--ways", nargs="+", choices=WAYS, default=WAYS, help="inference, besides the released way"
    )
    parser.add_argument("--classes", choices=["voc", "coco"], default="voc")
    parser.add_argument("--model", default="ViT-B-16-quickgelu", help="open_clip model")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--single", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns about random weights
    with tempfile.TemporaryDirectory() as folder:
        if options.single:
            print(json.dumps(one_step(Path(folder), options)))
        elif options.what == "step":
            compare_steps(options)
        else:
            compare_inference(Path(folder), options)


def configuration(options: argparse.Namespace, variant: str) -> Config:
    """WeakCLIP at the published size."""
    return for_photographs(
        {
            "variant": variant,
            "compute": {"device": options.device},
            "clip": {"model": options.model, "pretrained": "random"},
            "refine": {
                "method": "weakclip",
                "train": {"crop": CROP, "batch": options.batch, "lr": 1e-4},
                "weakclip": {"width": 256, "channels": 256},
            },
            "infer": {"scales": SCALES, "short_side": 512, "window": WINDOW, "stride": STRIDE},
        }
    )


def one_step(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Median seconds of a step and the process's peak memory, bytes."""
    frozen = options.single == "frozen"
    config = configuration(options, "corrected" if frozen else options.single)
    inputs = encoder_input(config, folder)
    refiner = WeakClip(refiner_setup(config, inputs, class_list(options.classes), folder))
    refiner.train_mode(True)
    batch = _batch(options.batch).to(inputs.encoder.device)
    groups = [{"params": list(group.parameters)} for group in refiner.parameter_groups()]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, weight_decay=3e-5)

    def forward() -> None:
        with torch.no_grad():
            refiner.network.encode(batch.images)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        refiner.loss(0, batch)["loss"].backward()
        optimizer.step()

    times = interleaved({"step": forward if frozen else step}, options.rounds)["step"]
    cuda = inputs.encoder.device.type == "cuda"
    memory = torch.cuda.max_memory_allocated() if cuda else peak_memory()
    counts = dict(zip(("trained", "all"), refiner.parameter_counts(), strict=True))
    return {"seconds": statistics.median(times), "bytes": memory} | counts


def compare_steps(options: argparse.Namespace) -> None:
    """Run each kind of step in a separate process and print ratios."""
    results: dict[str, dict[str, float]] = {}
    for name in STEPS:
        arguments = [f"--{n}={getattr(options, n)}" for n in ("rounds", "batch", "classes")]
        arguments += [f"--model={options.model}", f"--device={options.device}", f"--single={name}"]
        command = [sys.executable, "-m", "benchmarks.weakclip", "step", *arguments]
        process = subprocess.run(command, check=True, capture_output=True, text=True)
        result = results[name] = json.loads(process.stdout.splitlines()[-1])
        print(
            f"{name}: {result['seconds']:.2f} s per step of {options.batch}, "
            f"{options.batch / result['seconds']:.2f} images per second, "
            f"peak {result['bytes'] / 2**30:.2f} GiB"
        )
    published, corrected, frozen = (results[name] for name in STEPS)
    print(
        f"trained on top of CLIP {corrected['trained']:,.0f} parameters of {published['all']:,.0f}"
    )
    print(f"published / corrected, time: {published['seconds'] / corrected['seconds']:.2f}")
    print(f"corrected / published, memory: {corrected['bytes'] / published['bytes']:.2f}")
    print(f"frozen forward pass / corrected: {frozen['seconds'] / corrected['seconds']:.2f}")


def compare_inference(folder: Path, options: argparse.Namespace) -> None:
    """Time all ways on the same photos and print ratios."""
    config, classes = configuration(options, "corrected"), class_list(options.classes)
    inputs = encoder_input(config, folder)
    setup: Setup[Any] = refiner_setup(config, inputs, classes, folder)
    network = WeakClip(setup).network
    network.train(False)
    photos = [_photo(index) for index in range(options.photos)]
    infer, encoder = config.infer, inputs.encoder
    scaled = PhotoScaler(
        inputs.normalize,
        encoder.patch,
        encoder.device,
        grid=infer.grid,
        scales_from="photo",
        resample="opencv",
        short_side=infer.short_side,
        long_side=infer.long_side or config.clip.long_side,
    )

    @torch.inference_mode()
    def released() -> None:
        for photo in photos:
            total = torch.zeros(classes.label_count, *PHOTO, device=encoder.device)
            for scale in SCALES:
                pixels = scaled(photo, scale)
                for image in (pixels, pixels.flip(-1)):
                    logits = slide(one_window, image, WINDOW, STRIDE, encoder.patch, batch=1)[0]
                    total += resize_maps(logits, PHOTO).softmax(0)

    def one_window(pixels: torch.Tensor) -> torch.Tensor:
        return network.head(network.encode(pixels), network.texts())[1]

    def ours(infer: InferConfig) -> None:
        refiner = WeakClip(replace(setup, infer=infer), network)
        for photo in photos:
            refiner.scores(photo, TAGS, np.zeros((len(TAGS), 1, 1), np.float32))

    whole = infer.model_copy(update={"window": None, "stride": None})
    tasks: dict[str, Callable[[], None]] = {
        "released": released,
        "ours": lambda: ours(infer),
        "whole": lambda: ours(whole),
    }
    selected = {name: tasks[name] for name in ("released", *options.ways)}
    times = interleaved(selected, options.rounds, warm_up=False)
    seconds = {name: statistics.median(t) / options.photos for name, t in times.items()}
    for name, value in seconds.items():
        print(f"{name}: {value:.2f} s per photo")
    for name in options.ways:
        print(f"released / {name}: {seconds['released'] / seconds[name]:.2f}")


def _photo(seed: int) -> Photo:
    """A photo of noise."""
    return np.random.default_rng(seed).integers(0, 256, (*PHOTO, 3), np.uint8)


def _batch(count: int) -> CropBatch:
    """Crops of noise with seeds of two classes and unlabelled parts."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (count, CROP // 64, CROP // 64), generator=generator)
    labels = labels.repeat_interleave(64, 1).repeat_interleave(64, 2).to(torch.uint8)
    labels[labels == 2] = 9
    labels[:, :32] = 255
    none = torch.zeros(0)
    return CropBatch(
        images=torch.randn(count, 3, CROP, CROP, generator=generator),
        valid=torch.ones(count, CROP, CROP, dtype=torch.bool),
        labels=labels,
        image_index=torch.arange(count).repeat_interleave(2),
        classes=torch.tensor([0, 8]).repeat(count),
        probabilities=none,
        initial=torch.zeros(0, 1, 1),
        maps=torch.zeros(0, 1, 1),
    )


if __name__ == "__main__":
    main()
