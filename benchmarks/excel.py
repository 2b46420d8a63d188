"""Time and memory of ExCEL, as ratios in one run: `python -m benchmarks.excel`.

- step: a training step at the published size (320 pixels, batch 4, ViT-B/16, width 256), with the
  static CAM, with the dynamic one in closed form, and with the dynamic one by a second pass of the
  encoder, as published. All three propagate the CAM alike (six blocks, the learned affinity), so
  that they differ in the CAM alone.
- scores: patch-text similarity as two products, against the tensor tokens x texts x channels of the
  published code: seconds, and peak memory, each in a separate process.
- cams: CAMs without training of single images of 320 pixels, one per thread, against the bare
  forward pass of the same encoder, and of open_clip's.

Rounds are interleaved; medians are printed.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.baselines import bare_encoders
from benchmarks.refiners import BATCH, CROP, crop_batch, encoder_input, refiner_setup
from benchmarks.settings import for_photographs
from benchmarks.timing import interleaved, median_ratio, peak_memory
from wsss.cams.patch_text import similarity
from wsss.clip.attention import AttentionOverride, Heads
from wsss.clip.calibration import Calibration
from wsss.compute.threads import one_thread_each, ordered_map
from wsss.config.model import Config
from wsss.data.datasets.classes import class_list
from wsss.refine.base import Setup
from wsss.refine.excel.method import Excel
from wsss.refine.excel.relation import CalibratedFeatures, encode, shift

PARTS = ("step", "scores", "cams")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", help=f"of {PARTS} (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: 5)")
    parser.add_argument("--model", default="ViT-B-16-quickgelu", help="open_clip model")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns about random weights
    with tempfile.TemporaryDirectory() as folder:
        config = configuration(options.model, options.device)
        for part in options.parts or PARTS:
            print(f"\n{part}")
            {"step": _step, "scores": _scores, "cams": _cams}[part](
                config, Path(folder), options.rounds
            )


def configuration(model: str, device: str) -> Config:
    """ExCEL at the published size, corrected."""
    return for_photographs(
        {
            "compute": {"device": device},
            "clip": {"model": model, "pretrained": "random"},
            "cams": {"source": "patch_text", "affinity": {"last_blocks": 6}},
            "refine": {
                "method": "excel",
                "train": {"crop": CROP, "batch": BATCH},
                "excel": {"width": 256, "lvc_start": 0, "crop_visibility": "crop"},
            },
        }
    )


class _StaticCam(Excel):
    """The same propagation and labels, of the static CAM."""

    def encode(self, images: Tensor, *, dynamic: bool) -> CalibratedFeatures:
        return encode(self._calibration, images, "clean", attention_blocks=6)

    def tokens(self, features: CalibratedFeatures, related: Tensor | None = None) -> Tensor:
        return super().tokens(features)


class _SecondPass(_StaticCam):
    """The dynamic CAM as published: the encoder runs again with the relation in its attention."""

    def encode(self, images: Tensor, *, dynamic: bool) -> CalibratedFeatures:
        self.images = images
        return super().encode(images, dynamic=dynamic)

    def tokens(self, features: CalibratedFeatures, related: Tensor | None = None) -> Tensor:
        calibration = self._calibration
        assert related is not None
        assert calibration._override is not None
        override: AttentionOverride = calibration._override
        padded = torch.nn.functional.pad(shift(related), (1, 0, 1, 0))

        class Shifted:
            def __call__(self, heads: Heads) -> tuple[Tensor, None]:
                attended, _ = override(heads)
                return attended + calibration.gain * padded.unsqueeze(1) @ heads.values, None

        second = Calibration(Shifted(), calibration.first)
        encoding = self.encoder.run(self.images, calibration=second)
        return calibration.features(second.stream(encoding.tokens))


def _step(config: Config, folder: Path, rounds: int) -> None:
    inputs, classes = encoder_input(config, folder), class_list("voc")
    setup: Setup[Any] = refiner_setup(config, inputs, classes, folder)
    refiners = {
        "static CAM": _StaticCam(setup),
        "dynamic CAM, closed form": Excel(setup),
        "dynamic CAM, second pass": _SecondPass(setup),
    }
    batch = crop_batch().to(inputs.encoder.device)

    def step(refiner: Excel) -> Callable[[], None]:
        refiner.train_mode(True)
        return lambda: refiner.loss(0, batch)["loss"].backward()

    times = interleaved({name: step(refiner) for name, refiner in refiners.items()}, rounds)
    for name, values in times.items():
        ratio = median_ratio(values, times["static CAM"])
        print(f"| {name} | {statistics.median(values):.2f} s | {ratio:.2f} |")


def _scores(config: Config, folder: Path, rounds: int) -> None:
    context = multiprocessing.get_context("spawn")
    for texts in (45, 103):
        results = {}
        for form in ("two products", "four dimensions"):
            with context.Pool(1) as pool:
                results[form] = pool.apply(_score_once, (form, texts, rounds))
        for form, (seconds, extra) in results.items():
            print(f"| {texts} texts, {form} | {seconds:.4f} s | {extra / 2**20:.1f} MiB |")
        ours, theirs = results["two products"], results["four dimensions"]
        print(f"memory: {theirs[1] / max(ours[1], 1):.0f} x, time: {theirs[0] / ours[0]:.0f} x")


def _score_once(form: str, texts: int, rounds: int) -> tuple[float, int]:
    """Median seconds, and how much the process's peak memory grew; batch 4, 401 tokens."""
    features, bank = (
        torch.randn(4, 401, 512),
        torch.nn.functional.normalize(torch.randn(texts, 512)),
    )
    small = torch.randn(1, 2, 512)
    _written_out(small, bank[:2])  # what the first call of a kernel allocates
    similarity(small, bank[:2], torch.arange(1), torch.arange(1))
    # The peak that a process reports is at least its parent's; Linux can start it anew.
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = peak_memory()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        if form == "two products":  # of all texts, as the other
            every = torch.arange(texts).repeat(4)
            similarity(features, bank, torch.arange(4).repeat_interleave(texts), every)
        else:
            _written_out(features, bank)
        times.append(time.perf_counter() - start)
    return statistics.median(times), peak_memory() - before


def _written_out(features: Tensor, texts: Tensor) -> Tensor:
    unit = features / features.norm(dim=1, keepdim=True)
    prior = (2 * unit[:, 0] @ texts.T).softmax(-1)
    weights = prior / prior.mean(-1, keepdim=True)
    products = unit[:, :, None, :] * texts * weights[:, None, :, None]
    return (products - products.mean(2, keepdim=True)).sum(-1)


def _cams(config: Config, folder: Path, rounds: int) -> None:
    inputs = encoder_input(config, folder)
    refiner = Excel(refiner_setup(config, inputs, class_list("voc"), folder))
    patch_text, encoder = refiner.patch_text, inputs.encoder
    images = [image[None] for image in crop_batch().images]
    image_index, classes = torch.zeros(2, dtype=torch.long), torch.tensor([3, 7])

    def cams(image: Tensor, blocks: int) -> Tensor:
        calibration = patch_text.calibration()
        assert calibration is not None
        last = range(encoder.depth - blocks, encoder.depth)
        encoding = encoder.run(
            image, attention_sum_of=last, calibration=calibration, class_token_last=True
        )
        features = patch_text.features(calibration.stream(encoding.tokens))
        maps = patch_text.maps(features, encoding.grid, image_index, classes)
        if encoding.attention_sum is None:
            return maps
        return refiner.spread(encoding.attention_sum[:, None, 1:, 1:], maps, image_index)

    def threaded(blocks: int) -> None:
        with one_thread_each() as threads:
            list(ordered_map(lambda image: cams(image, blocks), images, threads=threads))

    tasks: dict[str, Callable[[], object]] = bare_encoders(inputs.clip.model, images)
    tasks["CAMs"] = lambda: threaded(0)
    tasks["CAMs and affinity"] = lambda: threaded(6)
    times = interleaved(tasks, rounds)
    bare = times["wsss encoder, one image per thread"]
    for name, values in times.items():
        speed = len(images) / statistics.median(values)
        share = 100 * median_ratio(bare, values)
        print(f"| {name} | {speed:.2f} images/s | {share:.0f} % of the bare encoder |")


if __name__ == "__main__":
    main()
