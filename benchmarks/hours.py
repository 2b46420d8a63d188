"""Hours of the trainings of the papers' presets on one GPU: `python -m benchmarks.hours`.

A step of each training is run at its published size, with random weights of the published networks
and crops of noise. On a CPU the batch is cut to two crops, which one worker decodes, and the time
scaled back to the preset's. On a GPU it is the preset's own, decoded by as many workers as a job
has there (`compute.workers: auto`). `--batch` cuts it as well, for a GPU with little memory. The
seconds are compared with those of a product of two matrices, measured in the same process. The
result is work: the floating-point operations that a dense product would do in the time. Where a
method changes in the middle of its training, both parts are measured and weighted.

Hours on a GPU are that work times the steps of the preset, divided by a rate. The rate is not known
in advance: small kernels, losses and labels on the CPU keep a GPU waiting. Three published times
give one each: WeCLIP's 4.5 hours for 30,000 steps of 4 crops of 320 pixels and ExCEL's 0.186 s per
step, on an RTX 3090, and WeakCLIP's 16.8 crops per second, GPUs not stated. Hours are printed at
the lowest and at the highest rate, as a range. On a CPU, seconds are those of the process, so that
other work on the machine matters little. With `--device cuda` they are those of the clock, and so
are the hours; then no rate is needed.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.ablation import ROOT
from benchmarks.rehearse.project import preset_files
from benchmarks.rehearse.reductions import PHASES
from benchmarks.scale import prepare
from wsss.artifacts.stage import STAGES
from wsss.config.base import AUTO, overlay
from wsss.config.load import from_mapping, merged_yaml
from wsss.config.model import Config
from wsss.config.runs import expand_runs

WECLIP_HOURS, EXCEL_SECONDS = 4.5, 0.186  # published, on an RTX 3090
WEAKCLIP_SECONDS = 16 / 16.8  # a step of 16 crops; published, GPUs not said
STEPS = {"cpu": (1, 3), "cuda": (20, 60)}
"""Of the two runs whose difference is timed. On a GPU the shorter one is longer than what the
workers prepare ahead."""
IMAGES = {"cpu": 8, "cuda": 64}
SIDE = 500
CPU_BATCH = 2
MATRIX = 2048
FITTED = {
    "voc12-weclip": 3600 * WECLIP_HOURS / 30_000,
    "voc12-excel": EXCEL_SECONDS,
    "voc12-weakclip": WEAKCLIP_SECONDS,
}
"""Published seconds per step of a preset's refiner."""
TRAININGS: dict[str, tuple[str, ...]] = {
    "voc12-weclip": ("refine",),
    "voc12-excel": ("refine",),
    "voc12-weakclip": ("refine", "retrain"),
    "voc12-clip-es-deeplabv2": ("retrain",),
    "coco14-weclip": ("refine",),
    "coco14-excel": ("refine",),
    "coco14-weakclip": ("refine", "retrain"),
    "coco14-clip-es-deeplabv2": ("retrain",),
    "coco14-weakclip-segmenters/segmenter-deit-s": ("retrain",),
    "coco14-weakclip-segmenters/segformer-b2": ("retrain",),
}
"""By preset, or by a run of a preset on top of the one that its name begins with."""


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--presets", nargs="+", choices=TRAININGS, default=list(TRAININGS))
    parser.add_argument(
        "--batch", type=int, help="crops per measured step (default: 2 on a CPU, all on a GPU)"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cache", type=Path, help="JSON file of measurements, to resume from")
    parser.add_argument("--single", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns about random weights
    if options.single:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(Path(folder), *options.single, options=options)))
        return
    cache: Path | None = options.cache
    measured = (
        json.loads(cache.read_text(encoding="utf-8"))
        if cache is not None and cache.exists()
        else {}
    )
    work = {}
    for preset in dict.fromkeys([*FITTED, *options.presets]):
        for what in TRAININGS[preset]:
            name = f"{preset}, {what}"
            measured[name] = measured.get(name) or work_of(preset, what, options)
            work[preset, what] = measured[name]
            print(f"{name}: {measured[name]['seconds']:.1f} s per step here", flush=True)
            if cache is not None:
                cache.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    rates = sorted(work[preset, "refine"]["step"] / FITTED[preset] for preset in FITTED)
    if options.device == "cpu":
        print(f"rates: {', '.join(f'{rate / 1e12:.1f}' for rate in rates)} T operations per second")
    for (preset, what), total in work.items():
        hours = f"{total['hours']:.1f}"
        if options.device == "cpu":
            low, high = (total["total"] / rate / 3600 for rate in (rates[-1], rates[0]))
            hours = f"{low:.1f} to {high:.1f}"
        print(
            f"{preset}, {what}: {total['steps']:,.0f} steps of {total['step'] / 1e12:.2f} T "
            f"operations, {hours} h"
        )


def work_of(preset: str, what: str, options: argparse.Namespace) -> dict[str, float]:
    """Work of a step and of the whole training, both parts weighted; each in a separate process."""
    config = load_preset(preset)
    phase = _phase(config) if what == "refine" else None
    parts: dict[str, float] = {"whole": 1.0}
    steps = (config.refine.train if what == "refine" else config.retrain).iterations
    if phase:
        start = getattr(config.refine.options, phase) / steps
        parts = {"first": start, "second": 1 - start}
    step = seconds = 0.0
    for part, share in parts.items():
        command = [sys.executable, "-m", "benchmarks.hours", "--single", preset, what, part]
        command += ["--device", options.device]
        command += [] if options.batch is None else ["--batch", str(options.batch)]
        process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        if process.returncode:
            raise SystemExit(f"{preset}, {what}: failed\n{process.stderr}")
        result = json.loads(process.stdout.splitlines()[-1])
        step += share * result["operations"]
        seconds += share * result["seconds"]
    hours = steps * seconds / 3600
    return {
        "steps": steps, "step": step, "seconds": seconds, "total": steps * step, "hours": hours,
    }  # fmt: skip


def load_preset(preset: str) -> Config:
    """A preset over the defaults, or one of its runs."""
    name, _, run = preset.partition("/")
    files = ("config.yaml", *preset_files(name))
    return expand_runs(merged_yaml(*(ROOT / file for file in files)), where=name)[run]


def measure(
    folder: Path, preset: str, what: str, part: str, *, options: argparse.Namespace
) -> dict[str, float]:
    """Seconds and work of a step of the preset's own batch."""
    config = load_preset(preset)
    kind = config.data.kind
    assert kind != "folder"
    machine = options.device.partition(":")[0]
    prepare(folder / "data", IMAGES[machine], side=SIDE, classes=kind)
    train = _train_refiner if what == "refine" else _train_segmenter
    section = config.refine.train if what == "refine" else config.retrain
    most = options.batch or (CPU_BATCH if machine == "cpu" else section.batch)
    batch = min(most, section.batch)
    few, many = STEPS[machine]
    seconds: list[float] = []
    for steps in (few, few, many):  # the first fills caches
        short = _short(config, what, part, steps, batch, options.device, folder / "data")
        start = _now(options.device)
        train(short, folder / "data", folder / f"run-{len(seconds)}", folder / "cache")
        seconds.append(_now(options.device) - start)
    step = (seconds[2] - seconds[1]) / (many - few) * section.batch / batch
    return {"seconds": step, "operations": step * _rate(options.device)}


def _short(
    config: Config, what: str, part: str, steps: int, batch: int, device: str, root: Path
) -> Config:
    """The preset with a few steps on the images of the benchmark."""
    method = config.refine.method
    training = {"iterations": steps, "batch": batch, "warmup": 0, "checkpoint_every": 1000}
    refine: dict[str, Any] = {"train": training} if what == "refine" else {}
    if what == "refine" and (phase := _phase(config)):
        refine[method] = {phase: 0 if part == "second" else 1000}
    if what == "refine" and method == "weakclip":
        refine[method] = {"repeat_list": ""}
    changes: dict[str, Any] = {
        "compute": {"device": device, "workers": 1 if device == "cpu" else AUTO},
        "data": {"root": str(root)},
        "clip": {"pretrained": "random"},
        "refine": refine,
        "retrain": training | {"init": "random", "batch_norm": "auto"} if what == "retrain" else {},
    }
    return from_mapping(overlay(config.model_dump(mode="json"), changes))


def _phase(config: Config) -> str | None:
    """The first option that says from which step on the training does more."""
    return next(iter(PHASES.get(config.refine.method, ())), None)


def _train_refiner(config: Config, data: Path, out: Path, cache: Path) -> None:
    from wsss.masks.seeds_stage import run as make_seeds
    from wsss.refine.stage import train

    cams, seeds = sorted((data / "cams").glob("*.h5")), []
    if config.refine.needs_seeds:
        for shard in cams:
            seeds.append(out / "seeds" / shard.name)
            arguments = STAGES["seeds"].arguments(config)
            make_seeds(data / "manifest", "train", shard, seeds[-1], out / "png", **arguments)
    files = (out / "checkpoint.safetensors", out / "loss.csv", out / "work")
    arguments = STAGES["refine_train"].arguments(config)
    train(data / "manifest", cams, *files, cache, seeds, **arguments)


def _train_segmenter(config: Config, data: Path, out: Path, cache: Path) -> None:
    from wsss.artifacts.stage import STAGES
    from wsss.retrain.train import train

    masks = sorted((data / "masks").glob("*.h5"))
    files = (out / "weights.safetensors", out / "loss.csv", out / "work")
    train(data / "manifest", masks, *files, **STAGES["retrain"].arguments(config))


def _now(device: str) -> float:
    """Seconds: of this process on a CPU, of the clock on a GPU."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def _rate(device: str) -> float:
    """Operations per second of a product of two float32 matrices."""
    matrix = torch.rand(MATRIX, MATRIX, device=device)
    rates = []
    for _ in range(5):
        start = _now(device)
        matrix @ matrix
        rates.append(2 * MATRIX**3 / (_now(device) - start))
    return max(rates)


if __name__ == "__main__":
    main()
