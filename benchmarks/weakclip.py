"""WeakCLIP's training step and inference, as ratios in one run: `python -m benchmarks.weakclip`.

Published in size: ViT-B/16 with random weights, crops of 512, width 256; photos of 375 x 500.

- step: forward, losses with the CRF, backward and AdamW on crops that are ready. `published` is the
  released recipe (the learning rate that leaks into CLIP, so that both towers are run backward),
  without its anomaly detection and its unused graph; `corrected` freezes CLIP. Each in a process of
  its own, because peak memory is a process's; they take turns. `frozen` is the image tower's
  forward pass alone: what no frozen recipe can do without.
- inference: six scales, mirrored, windows of 512 every 341 pixels. The baseline is the released
  way: a window at a time, the texts encoded for each, probabilities of all labels at the photo's
  size. Ours encodes the texts once, looks at windows together and carries the image's own labels;
  `whole` does so without windows (`infer.window: null`): no pixel of a view is looked at twice.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from wsss.cams.maps import resize_maps
from wsss.clip.input import EncoderInput
from wsss.config.load import from_mapping
from wsss.config.model import Config
from wsss.data.datasets.classes import ClassList, class_list
from wsss.data.manifest import Sample
from wsss.refine.base import Refiner, Scores
from wsss.refine.inference import Photo, slide
from wsss.refine.inputs import ImageCams
from wsss.refine.load import build_refiner
from wsss.refine.photos import on_photos
from wsss.refine.training.crops import CropBatch
from wsss.refine.weakclip.method import WeakClip

SCALES = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
PHOTO = (375, 500)
CROP, WINDOW, MOVE = 512, 512, 341
STEPS = ("published", "corrected", "frozen")
WAYS = ("ours", "whole")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["step", "inference"])
    parser.add_argument("--rounds", type=int, default=3, help="of which the median (default: 3)")
    parser.add_argument("--batch", type=int, default=2, help="crops a step (default: 2)")
    parser.add_argument("--photos", type=int, default=2, help="inference (default: 2)")
    parser.add_argument(
        "--ways", nargs="+", choices=WAYS, default=WAYS, help="inference, beside the released way"
    )
    parser.add_argument("--classes", choices=["voc", "coco"], default="voc")
    parser.add_argument("--model", default="ViT-B-16-quickgelu", help="open_clip model")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--one", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns about random weights
    with tempfile.TemporaryDirectory() as folder:
        if options.one:
            print(json.dumps(one_step(Path(folder), options)))
        elif options.what == "step":
            compare_steps(options)
        else:
            compare_inference(Path(folder), options)


def configuration(options: argparse.Namespace, variant: str) -> Config:
    """WeakCLIP at the published size."""
    return from_mapping(
        {
            "variant": variant,
            "compute": {"device": options.device},
            "clip": {"model": options.model, "pretrained": "random"},
            "refine": {
                "method": "weakclip",
                "train": {"crop": CROP, "batch": options.batch, "lr": 1e-4},
                "weakclip": {"width": 256, "channels": 256},
            },
            "infer": {"scales": SCALES, "short_side": 512, "window": WINDOW, "stride": MOVE},
        }
    )


def one_step(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Median seconds of a step and the process's peak memory, bytes."""
    frozen = options.one == "frozen"
    config = configuration(options, "corrected" if frozen else options.one)
    inputs = EncoderInput(config.clip, folder, device=config.compute.device)
    refiner = cast(WeakClip, _refiner(config, class_list(options.classes), inputs))
    refiner.train_mode(True)
    network = refiner.network
    batch = _batch(options.batch).to(inputs.encoder.device)
    groups = [{"params": list(group.parameters)} for group in network.groups()]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, weight_decay=3e-5)

    def work() -> None:
        if frozen:
            with torch.no_grad():
                network.encode(batch.images)
            return
        optimizer.zero_grad(set_to_none=True)
        refiner.loss(0, batch)["loss"].backward()
        optimizer.step()

    times = []
    for number in range(-1, options.rounds):  # the first one warms up
        _wait(inputs.encoder.device)
        start = time.perf_counter()
        work()
        _wait(inputs.encoder.device)
        if number >= 0:
            times.append(time.perf_counter() - start)
    cuda = inputs.encoder.device.type == "cuda"
    own = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = torch.cuda.max_memory_allocated() if cuda else own
    counts = dict(zip(("own", "all"), network.parameter_counts(), strict=True))
    return {"seconds": statistics.median(times), "bytes": memory} | counts


def compare_steps(options: argparse.Namespace) -> None:
    """Run each kind of step in a process of its own and print ratios."""
    found: dict[str, dict[str, float]] = {}
    for name in STEPS:
        arguments = [f"--{n}={getattr(options, n)}" for n in ("rounds", "batch", "classes")]
        arguments += [f"--model={options.model}", f"--device={options.device}", f"--one={name}"]
        command = [sys.executable, "-m", "benchmarks.weakclip", "step", *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
        one = found[name]
        print(
            f"{name}: {one['seconds']:.2f} s a step of {options.batch}, "
            f"{options.batch / one['seconds']:.2f} images a second, "
            f"peak {one['bytes'] / 2**30:.2f} GiB"
        )
    published, corrected, frozen = (found[name] for name in STEPS)
    print(f"trained on top of CLIP {corrected['own']:,.0f} parameters of {published['all']:,.0f}")
    print(f"published / corrected, time: {published['seconds'] / corrected['seconds']:.2f}")
    print(f"corrected / published, memory: {corrected['bytes'] / published['bytes']:.2f}")
    print(f"frozen forward pass / corrected: {frozen['seconds'] / corrected['seconds']:.2f}")


def _refiner(config: Config, classes: ClassList, inputs: EncoderInput) -> Refiner[Any]:
    return build_refiner(
        inputs,
        classes,
        clip=config.clip,
        cams=config.cams,
        refine=config.refine,
        prompts={},
        infer=config.infer,
    )


def compare_inference(folder: Path, options: argparse.Namespace) -> None:
    """Time both ways on the same photos and print the ratio."""
    config, classes = configuration(options, "corrected"), class_list(options.classes)
    inputs = EncoderInput(config.clip, folder, device=config.compute.device)
    refiner = cast(WeakClip, _refiner(config, classes, inputs))
    refiner.train_mode(False)
    network = refiner.network
    images = [_image(folder, number) for number in range(options.photos)]
    encoder, scaled = inputs.encoder, refiner.scaled

    @torch.inference_mode()
    def released() -> None:
        for image in images:
            photo = inputs.photo(image.sample)
            total = torch.zeros(classes.label_count, *PHOTO, device=inputs.encoder.device)
            for scale in SCALES:
                pixels = scaled(photo, scale)
                for view in (pixels, pixels.flip(-1)):
                    logits = slide(one_window, view, WINDOW, MOVE, encoder.patch, batch=1)[0]
                    total += resize_maps(logits, PHOTO).softmax(0)

    def one_window(pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = network.head(network.encode(pixels), network.texts())[1]
        return logits

    def ours(refiner: Refiner[Any]) -> None:
        def scores(photo: Photo, image: ImageCams) -> Scores:
            return refiner.scores(photo, image.classes, image.initial)

        for _ in on_photos(inputs, ((image.sample, image) for image in images), scores):
            pass

    infer = config.infer.model_copy(update={"window": None, "stride": None})
    whole = WeakClip(replace(refiner.setup, infer=infer), network)
    work_of: dict[str, Callable[[], None]] = {
        "released": released,
        "ours": lambda: ours(refiner),
        "whole": lambda: ours(whole),
    }
    times: dict[str, list[float]] = {name: [] for name in ("released", *options.ways)}
    for number in range(options.rounds):
        del number
        for name in times:
            _wait(inputs.encoder.device)
            start = time.perf_counter()
            work_of[name]()
            _wait(inputs.encoder.device)
            times[name].append(time.perf_counter() - start)
    each = {name: statistics.median(t) / options.photos for name, t in times.items()}
    for name, seconds in each.items():
        print(f"{name}: {seconds:.2f} s a photo")
    for name in options.ways:
        print(f"released / {name}: {each['released'] / each[name]:.2f}")


def _image(folder: Path, number: int) -> ImageCams:
    """A photo of noise with two tags."""
    path = folder / f"{number}.png"
    pixels = np.random.default_rng(number).integers(0, 256, (*PHOTO, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    sample = Sample(str(number), "train", path, PHOTO[1], PHOTO[0], str(number), (2, 7))
    maps = np.zeros((2, 1, 1), np.float16)
    return ImageCams(sample, sample.tags, maps, maps, None)


def _batch(count: int) -> CropBatch:
    """Crops of noise with seeds of two classes and what is not known."""
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


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
