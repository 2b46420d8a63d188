"""Kinds of affinity on held-out images: `python -m benchmarks.affinity voc-subset --out …`.

Scores the maps of every run of the preset `affinity` on the training images, at every constant
background score. Each row then takes the blocks, the power and the background score that are best
there, and with these alone it is scored on the held-out images. Writes `train.csv`, every run on
train, and `val.csv`: the mIoU on both (of the photographs over background and the report classes),
and on val the difference to attention with its 95 % interval (bootstrap over images, paired).
`default.csv` is the same with the default blocks and power; only the background score is chosen.
Nothing is random; there are no seeds. The runs share the passes of the encoder, so all of them take
minutes where the preset takes hours.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.ablation import ROOT
from wsss.artifacts.stage import STAGES
from wsss.cams.affinity import propagate
from wsss.cams.grad_cam import grad_cam
from wsss.cams.patch_affinity import pair_factor, pair_weights
from wsss.cams.patch_text import PatchText
from wsss.clip.input import EncoderInput
from wsss.clip.text.attributes import enriched_bank
from wsss.clip.text.embeddings import TextBank
from wsss.config.cams import AffinityConfig, CamsConfig
from wsss.config.load import from_mapping, merged_yaml
from wsss.config.model import Config
from wsss.config.runs import MANY, expand_runs
from wsss.data.ingest.stage import ingest
from wsss.data.manifest import Sample
from wsss.data.manifest_folder import load
from wsss.demo.dataset import generate
from wsss.labels.upsample import upsample
from wsss.score.inputs import Inputs
from wsss.score.metrics.bootstrap import difference, mean_iou
from wsss.score.metrics.confusion import Confusion
from wsss.score.metrics.counting import Image
from wsss.score.metrics.image_counts import CountTable
from wsss.score.metrics.threshold_sweep import Sweep

PRESETS = {
    "grad_cam": {"demo": "demo-clip-es", "voc-subset": "voc-subset"},
    "patch_text": {"demo": "demo-excel", "voc-subset": "voc-subset-excel"},
}
NONE, ATTENTION = "none", "attention"
_DEPTH = 12  # blocks of either encoder
_DEFAULT = (AffinityConfig().blocks_of(_DEPTH), AffinityConfig().power)
HEADER = ["affinity", "blocks", "power", "background", "train", "val", "difference", "95 %"]
Maps = Mapping[str, np.ndarray]
"""Of an image by run: float16 [classes, rows, columns]."""


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", choices=PRESETS["grad_cam"])
    parser.add_argument("--source", choices=PRESETS, default="grad_cam")
    parser.add_argument("--out", type=Path, required=True, help="folder of the tables")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        plan = Plan(options.set, options.source, Path(folder))
        swept = plan.on_train()
        options.out.mkdir(parents=True, exist_ok=True)
        for name, rows in TABLES.items():
            with (options.out / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(rows(plan, swept))


@dataclass(frozen=True)
class Best:
    """A run on the training images, at the constant background score that is best there."""

    label: str
    miou: float
    threshold: float


@dataclass(frozen=True)
class Plan:
    """What is compared."""

    set: str
    source: str
    folder: Path

    @cached_property
    def mapping(self) -> dict[str, Any]:
        """The preset `affinity` over that of the CAM source."""
        names = (PRESETS[self.source][self.set], "affinity")
        files = (ROOT / f"workflow/presets/{name}.yaml" for name in names)
        return merged_yaml(ROOT / "config.yaml", *files)

    @cached_property
    def runs(self) -> dict[str, CamsConfig]:
        """The runs of the preset by their label."""
        return {label: run.cams for label, run in expand_runs(self.mapping).items()}

    @cached_property
    def config(self) -> Config:
        """What the runs share."""
        return from_mapping({k: v for k, v in self.mapping.items() if k not in MANY})

    @cached_property
    def manifest(self) -> Path:
        """The folder of the manifest."""
        data = self.config.data
        if data.kind == "demo":
            generate(Path(data.root), train=data.demo_images[0], val=data.demo_images[1])
        ingest(self.folder / "manifest", **STAGES["ingest"].arguments(self.config))
        return self.folder / "manifest"

    @cached_property
    def inputs(self) -> EncoderInput:
        return EncoderInput(self.config.clip, self.folder, max_pixels=self.config.data.max_pixels)

    @cached_property
    def bank(self) -> TextBank:
        """As `wsss.cams.clip_sources.ClipSource` has it for either source."""
        _, classes = load(self.manifest)
        template, tse = self.config.clip.template, self.config.cams.patch_text.tse
        return enriched_bank(self.inputs.clip, classes, template, tse, self.folder)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        return ("background", *load(self.manifest)[1].names)

    @property
    def among(self) -> list[int]:
        """Labels over which the mean runs; empty = all."""
        report = self.config.score.report_classes
        return [self.labels.index(name) for name in ("background", *report)] if report else []

    def on_train(self) -> dict[str, Best]:
        """Every run at its best threshold on train, `NONE` first."""
        sweeps: dict[str, Sweep] = {}
        for image, maps in self.images("train", self.runs):
            truth = image.read_truth(len(self.labels))
            for label, grid in maps.items():
                largest, winner = _winners(grid, truth.shape)
                sweep = sweeps.setdefault(label, Sweep(len(self.labels)))
                sweep.add(truth, largest, winner, image.tags)
        best = {}
        for label, sweep in sweeps.items():
            curve = sweep.curve(self.among)
            threshold, _ = sweep.best(curve)
            best[label] = Best(label, max(curve), threshold)
        # Runs that differ in nothing that they read are one.
        return {label: best[self._first(label)] for label in (NONE, *self.runs)}

    def on_val(self, chosen: Mapping[str, Best]) -> dict[str, CountTable]:
        """Counts of each row on val."""
        counts = {row: Confusion(len(self.labels)) for row in chosen}
        runs = {b.label: self.runs[b.label] for b in chosen.values() if b.label != NONE}
        for image, maps in self.images("val", runs):
            truth = image.read_truth(len(self.labels))
            classes = np.array([*image.tags, 0], np.uint8) + 1
            for row, best in chosen.items():
                largest, winner = _winners(maps[best.label], truth.shape)
                foreground = largest > np.float32(best.threshold)
                labels = np.where(foreground, classes[winner], 0).astype(np.uint8)
                counts[row].add(truth, labels, image.id)
        return {row: confusion.image_counts.confusion for row, confusion in counts.items()}

    def _first(self, label: str) -> str:
        """The first run with the same effective options."""
        if label == NONE:
            return NONE
        key = self.runs[label].effective()
        return next(other for other, cams in self.runs.items() if cams.effective() == key)

    def images(self, split: str, runs: Mapping[str, CamsConfig]) -> Iterator[tuple[Image, Maps]]:
        """The images of a split with their maps."""
        data, noise = self.config.data, self.config.tag_noise
        expected = STAGES["score_blob"].provenance(STAGES["score_blob"].select(self.config))
        scored = Inputs.open(data, noise, self.manifest, split, [], "", expected)
        samples = {sample.id: sample for sample in load(self.manifest)[0].split(split)}
        distinct = {self._first(label): cams for label, cams in runs.items()}
        done = 0
        for part in scored.parts:
            for image in part.images:
                yield image, self.maps(samples[image.id], distinct)
                done += 1
                if done % 50 == 0:
                    print(f"{split}: {done} of {scored.images}", file=sys.stderr, flush=True)

    @torch.inference_mode()
    def maps(self, sample: Sample, runs: Mapping[str, CamsConfig]) -> Maps:
        """The maps of an image, before the affinity (`NONE`) and after that of each run."""
        encoder, cams, bank = self.inputs.encoder, self.config.cams, self.bank
        pixels, tags = self.inputs.pixels(sample)[None], [sample.tags]
        if self.source == "grad_cam":
            raw = grad_cam(encoder, pixels, tags, bank, cams.gradient, features=True)
            maps, index, features = raw.scaled(cams.scaling), raw.image_index, raw.features
        else:
            patch_text = PatchText(encoder, bank, cams.patch_text)
            evidence = patch_text.evidence(pixels, tags, patch_features=True)
            maps, index = patch_text.scaled(evidence), evidence.image_index
            features = evidence.features
        assert features is not None
        attention = encoder.run(pixels, attention_of=range(encoder.depth)).attention
        factors: dict[tuple[object, ...], Tensor | None] = {}
        result = {NONE: maps.half().numpy()}
        for label, settings in runs.items():
            affinity = settings.affinity
            key = (affinity.factor, affinity.sharpness, affinity.tau, affinity.exponent)
            if key not in factors:
                factors[key] = pair_factor(features, bank, affinity)
            blocks = range(encoder.depth - affinity.blocks_of(encoder.depth), encoder.depth)
            mean = torch.stack([attention[i] for i in blocks]).mean(0) if blocks else None
            weights = pair_weights(mean, factors[key])
            result[label] = propagate(weights, maps, index, settings).half().numpy()
        return result


def train_table(plan: Plan, swept: Mapping[str, Best]) -> Iterator[list[str]]:
    """Every run on train: a row per kind and temperature, a column per blocks and power."""
    columns: dict[tuple[int, int], None] = {}
    rows: dict[str, list[str]] = {}
    for label in plan.runs:
        columns[_blocks(plan, label)] = None
        rows.setdefault(_row(label), []).append(_percent(swept[label].miou))
    yield ["affinity", *(f"{blocks} blocks, power {power}" for blocks, power in columns)]
    yield [NONE, *[_percent(swept[NONE].miou)] * len(columns)]
    for row, cells in rows.items():
        yield [row, *cells]


def val_table(
    plan: Plan, swept: Mapping[str, Best], *, default: bool = False
) -> Iterator[list[str]]:
    """Each row with what is best on train, or with the default blocks and power, on val."""
    by_row: dict[str, list[Best]] = {}
    for label, best in swept.items():
        if not default or label == NONE or _blocks(plan, label) == _DEFAULT:
            by_row.setdefault(_row(label), []).append(best)
    chosen = {row: max(runs, key=lambda best: best.miou) for row, runs in by_row.items()}
    counts = plan.on_val(chosen)
    yield HEADER
    for row, best in chosen.items():
        cells = ["", ""]
        if row != NONE:
            affinity = plan.runs[best.label].affinity
            blocks = str(affinity.last_blocks) if affinity.uses_attention else ""
            cells = [blocks, str(affinity.power)]
        value = mean_iou(counts[row], among=plan.among)
        cells += [f"{best.threshold:.2f}", _percent(best.miou), _percent(value)]
        yield [row, *cells, *_difference(counts[row], counts[ATTENTION], plan.among)]


TABLES: Mapping[str, Callable[[Plan, Mapping[str, Best]], Iterator[list[str]]]] = {
    "train": train_table,
    "val": val_table,
    "default": partial(val_table, default=True),
}
"""By the name of the file."""


def _difference(first: CountTable, second: CountTable, among: Sequence[int]) -> list[str]:
    """The difference of two runs and its interval; of one and the same, nothing."""
    if first is second:
        return ["", ""]
    other = difference(first, second, among=among)
    low, high = 100 * other.interval.low, 100 * other.interval.high
    return [f"{100 * other.value:+.1f}", f"{low:+.1f} to {high:+.1f}"]


def _winners(grid: np.ndarray, size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The largest score of each pixel and the position of its class, as they are scored."""
    if not len(grid):
        return np.zeros(size, np.float32), np.zeros(size, np.uint8)
    scores = upsample(grid.astype(np.float32), (size[0], size[1]))
    return scores.max(axis=0), scores.argmax(axis=0).astype(np.uint8)


def _blocks(plan: Plan, label: str) -> tuple[int, int]:
    affinity = plan.runs[label].affinity
    blocks = affinity.model_copy(update={"kind": ATTENTION}).blocks_of(_DEPTH)
    return blocks, affinity.power


def _row(label: str) -> str:
    return label.partition("_")[0]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


if __name__ == "__main__":
    main()
