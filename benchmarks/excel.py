"""Time and memory of ExCEL, as ratios in one run: `python -m benchmarks.excel`.

- step: a training step at the published size (320 pixels, batch 4, ViT-B/16, width 256), with the
  static CAM, with the dynamic one in closed form, and with the dynamic one by a second pass of the
  encoder, as published. All three refine the CAM alike (six blocks, the learned affinity), so that
  they differ in the CAM alone.
- scores: patch-text similarity as two products, against the tensor tokens x texts x channels of the
  published code: seconds, and peak memory, each in a process of its own.
- cams: CAMs without training of single images of 320 pixels, one a thread, against the bare forward
  pass of the same encoder, and of open_clip's.

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

import torch
from torch import Tensor

from benchmarks.baselines import bare_encoders
from benchmarks.weclip import BATCH, CROP, crop_batch
from wsss.cams.patch_text import similarity
from wsss.clip.attention import Heads
from wsss.clip.calibration import Calibration
from wsss.clip.input import EncoderInput
from wsss.compute.threads import one_thread_each, ordered_map
from wsss.config.load import from_mapping
from wsss.config.model import Config
from wsss.data.datasets.classes import class_list
from wsss.refine.base import Setup
from wsss.refine.blocks.pseudo_labels import crop_labels, shown_tags
from wsss.refine.excel.method import Excel
from wsss.refine.excel.options import ExcelOptions
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
    """ExCEL at the published size."""
    return from_mapping(
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
    """The same refinement and labels, of the static CAM."""

    def pseudo_labels(self, batch, features, related):  # type: ignore[no-untyped-def]
        tokens, rows = self.tokens(features), (batch.image_index, batch.classes)
        maps = self.patch_text.maps(tokens, features.grid, *rows)
        probs = self.patch_text.probabilities(tokens, *rows)
        maps = self.spread(features.attention, maps, batch.image_index, related)
        return crop_labels(batch, maps, shown_tags(batch, self.options, probs), self.options)

    def encode(self, images: Tensor, *, dynamic: bool) -> CalibratedFeatures:
        return encode(self.patch_text, images, "clean", attention_blocks=6)


class _SecondPass(_StaticCam):
    """The dynamic CAM as published: the encoder runs again with the relation in its attention."""

    images: Tensor
    related: Tensor

    def encode(self, images: Tensor, *, dynamic: bool) -> CalibratedFeatures:
        self.images = images
        return super().encode(images, dynamic=dynamic)

    def tokens(self, features: CalibratedFeatures, related: Tensor | None = None) -> Tensor:
        override = self.patch_text.calibration()._override  # type: ignore[union-attr]
        moved = shift(self.related)
        padded = torch.zeros(len(moved), 1 + moved.shape[1], 1 + moved.shape[1])
        padded[:, 1:, 1:] = moved
        gain = self.patch_text.gain

        class Shifted:
            def __call__(self, heads: Heads) -> tuple[Tensor, None]:
                attended, _ = override(heads)
                return attended + gain * padded.unsqueeze(1) @ heads.values, None

        calibration = Calibration(Shifted(), self.patch_text.first)
        run = self.encoder.run(self.images, calibration=calibration)
        return self.patch_text.features(calibration.stream(run.tokens))

    def pseudo_labels(self, batch, features, related):  # type: ignore[no-untyped-def]
        self.related = related
        return super().pseudo_labels(batch, features, related)


def _setup(config: Config, folder: Path) -> Setup[ExcelOptions]:
    refine = config.refine
    return Setup(
        options=refine.section(ExcelOptions),
        encoder_input=EncoderInput(config.clip, folder, device=config.compute.device),
        classes=class_list("voc"),
        template=config.clip.template,
        crop=refine.train.crop,
        cams=config.cams,
        infer=config.infer,
        embeddings=folder,
    )


def _step(config: Config, folder: Path, rounds: int) -> None:
    setup = _setup(config, folder)
    refiners = {
        "static CAM": _StaticCam(setup),
        "dynamic CAM, closed form": Excel(setup),
        "dynamic CAM, second pass": _SecondPass(setup),
    }
    batch = crop_batch().to(setup.encoder_input.encoder.device)
    for refiner in refiners.values():
        refiner.train_mode(True)
    tasks: dict[str, Callable[[], object]] = {
        name: lambda refiner=refiner: refiner.loss(0, batch)["loss"].backward()
        for name, refiner in refiners.items()
    }
    times = _interleaved(tasks, rounds)
    for name, values in times.items():
        ratios = [mine / bare for mine, bare in zip(values, times["static CAM"], strict=True)]
        print(f"| {name} | {statistics.median(values):.2f} s | {statistics.median(ratios):.2f} |")


def _scores(config: Config, folder: Path, rounds: int) -> None:
    context = multiprocessing.get_context("spawn")
    for texts in (45, 103):
        found = {}
        for form in ("two products", "four dimensions"):
            with context.Pool(1) as pool:
                found[form] = pool.apply(_score_once, (form, texts, rounds))
        for form, (seconds, extra) in found.items():
            print(f"| {texts} texts, {form} | {seconds:.4f} s | {extra / 2**20:.1f} MiB |")
        ours, theirs = found["two products"], found["four dimensions"]
        print(f"memory: {theirs[1] / max(ours[1], 1):.0f} x, time: {theirs[0] / ours[0]:.0f} x")


def _score_once(form: str, texts: int, rounds: int) -> tuple[float, int]:
    """Median seconds, and how much the process's peak memory grew; batch 4, 401 tokens."""
    features, bank = (
        torch.randn(4, 401, 512),
        torch.nn.functional.normalize(torch.randn(texts, 512)),
    )
    owner = torch.arange(4).repeat_interleave(2)
    wanted = torch.arange(8)
    small = torch.randn(1, 2, 512)
    _written_out(small, bank[:2])  # what the first call of a kernel allocates
    similarity(small, bank[:2], owner[:1], wanted[:1])
    # The peak that a process reports is at least its parent's; Linux can start it anew.
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        if form == "two products":  # of all texts, as the other
            every = torch.arange(texts).repeat(4)
            similarity(features, bank, torch.arange(4).repeat_interleave(texts), every)
        else:
            _written_out(features, bank)
        times.append(time.perf_counter() - start)
    return statistics.median(times), _peak() - before


def _peak() -> int:
    """Largest resident size of this process so far, bytes (Linux)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if "VmHWM" in line).split()[1])


def _written_out(features: Tensor, texts: Tensor) -> Tensor:
    unit = features / features.norm(dim=1, keepdim=True)
    prior = (2 * unit[:, 0] @ texts.T).softmax(-1)
    weights = prior / prior.mean(-1, keepdim=True)
    products = unit[:, :, None, :] * texts * weights[:, None, :, None]
    return (products - products.mean(2, keepdim=True)).sum(-1)


def _cams(config: Config, folder: Path, rounds: int) -> None:
    refiner = Excel(_setup(config, folder))
    inputs, scores, encoder = refiner.setup.encoder_input, refiner.patch_text, refiner.encoder
    images = [image[None] for image in crop_batch().images]
    owner, classes = torch.zeros(2, dtype=torch.long), torch.tensor([3, 7])

    def one(image: Tensor, blocks: int) -> Tensor:
        calibration = scores.calibration()
        assert calibration is not None
        last = range(encoder.depth - blocks, encoder.depth)
        run = encoder.run(
            image, attention_sum_of=last, calibration=calibration, class_token_last=True
        )
        maps = scores.maps(
            scores.features(calibration.stream(run.tokens)), run.grid, owner, classes
        )
        if run.attention_sum is None:
            return maps
        return refiner.spread(run.attention_sum[:, None, 1:, 1:], maps, owner)

    def threaded(blocks: int) -> None:
        with one_thread_each() as threads:
            list(ordered_map(lambda image: one(image, blocks), images, threads=threads))

    tasks: dict[str, Callable[[], object]] = bare_encoders(inputs.clip.model, images)
    tasks["CAMs"] = lambda: threaded(0)
    tasks["CAMs and affinity"] = lambda: threaded(6)
    times = _interleaved(tasks, rounds)
    bare = "wsss encoder, one image a thread"
    for name, values in times.items():
        speed = [len(images) / value for value in values]
        ratios = [base / mine for base, mine in zip(times[bare], values, strict=True)]
        print(
            f"| {name} | {statistics.median(speed):.2f} images/s | "
            f"{100 * statistics.median(ratios):.0f} % of the bare encoder |"
        )


def _interleaved(tasks: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(-1, rounds):  # the first one warms up
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number >= 0:
                times[name].append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    main()
