"""The work that `benchmarks.determinism` cuts in many ways: CAMs, masks, two trainings."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss.artifacts.checkpoint import load_checkpoint
from wsss.artifacts.digest import digest_arrays, digest_json
from wsss.artifacts.shard import Shard
from wsss.artifacts.stage import STAGES
from wsss.cams.stage import run as make_cams
from wsss.clip.weights import weights_digest
from wsss.compute.threads import fixed_threads
from wsss.config.base import overlay
from wsss.config.load import from_mapping
from wsss.config.model import Config
from wsss.data.ingest.stage import ingest
from wsss.demo.dataset import generate
from wsss.masks.stage import run as make_masks
from wsss.refine.stage import train as train_refiner
from wsss.retrain.train import train as train_segmenter

SHARDS, WORKERS, BATCHES = (1, 3, 7), (1, 2), (1, 4)
TRAININGS = ((1, 1), (2, 1), (1, 2), (1, 4))
_BASE: dict[str, Any] = {
    "compute": {"device": "cpu"},
    "refine": {
        "method": "weclip",
        "train": {"iterations": 12, "batch": 2, "warmup": 2, "checkpoint_every": 100},
        "weclip": {"width": 16, "rfm_start": 4},
    },
    "retrain": {"iterations": 8, "crop": 64, "batch": 2, "warmup": 2, "checkpoint_every": 100},
}


@dataclass(frozen=True)
class Row:
    """How the work was cut, and the digests of the results."""

    cut: str
    digests: dict[str, str]
    """By product."""


class Bench:
    """The demo's images in a folder, and what is computed from them.

    Args:
        folder: to work in; it is emptied.
        images: of the train split.
    """

    def __init__(self, folder: Path, images: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self._folder, self._manifest = folder, folder / "manifest"
        generate(folder / "data", train=images, val=1)
        data = {"root": str(folder / "data"), "demo_images": [images, 1]}
        self._base = _BASE | {"data": data}
        config = self.config()
        ingest(self._manifest, variant=config.variant, data=config.data, compute=config.compute)

    def config(self, **changes: Any) -> Config:
        """The configuration with changes."""
        return from_mapping(overlay(self._base, changes))

    def cut(self, shards: int, workers: int, batch: int) -> Row:
        """CAMs and masks, in so many shards."""
        out = self._folder / f"{shards}-{workers}-{batch}"
        config = self.config(compute={"workers": workers, "batch": batch})
        contents: dict[str, dict[str, str]] = {"CAMs": {}, "masks": {}}
        for part in range(1, shards + 1):
            cams, masks = (out / f"{name}/{part}.h5" for name in ("cams", "masks"))
            cache, png = self._folder / "cache", out / f"png/{part}"
            arguments = STAGES["cams"].arguments(config)
            make_cams(self._manifest, "train", (part, shards), cams, cache, **arguments)
            arguments = STAGES["masks"].arguments(config)
            make_masks(self._manifest, cams, masks, png, **arguments)
            contents["CAMs"] |= _contents(cams)
            contents["masks"] |= _contents(masks)
        cut = f"shards {shards}, workers {workers}, batch {batch}"
        return Row(cut, {name: digest_json(images) for name, images in contents.items()})

    def trainings(self, workers: int, threads: int) -> Row:
        """Refiner and segmenter, from the start, with so many workers.

        Args:
            workers: that decode and cut.
            threads: of the process, as ``OMP_NUM_THREADS`` and ``--cores`` set them.
        """
        with fixed_threads(threads):
            return self._trainings(workers, threads)

    def _trainings(self, workers: int, threads: int) -> Row:
        out, first = self._folder / f"training-{workers}-{threads}", self._folder / "1-1-1"
        config = self.config(compute={"workers": workers})
        files = (out / "refiner.safetensors", out / "refiner.csv", out / "refiner")
        arguments = STAGES["refine_train"].arguments(config)
        cams = [first / "cams/1.h5"]
        train_refiner(self._manifest, cams, *files, self._folder / "cache", **arguments)
        files = (out / "segmenter.safetensors", out / "segmenter.csv", out / "segmenter")
        arguments = STAGES["retrain"].arguments(config)
        train_segmenter(self._manifest, [first / "masks/1.h5"], *files, **arguments)
        digests = {
            name: weights_digest(load_checkpoint(out / f"{name}.safetensors")[0])
            for name in ("refiner", "segmenter")
        }
        return Row(f"{workers} data workers, process with {threads} threads", digests)


def _contents(path: Path) -> dict[str, str]:
    """Digest of the content of each image of a shard."""
    with Shard(path) as shard:
        return {i.id: digest_json([digest_arrays(i.arrays), dict(i.attrs)]) for i in shard}


def measure(
    folder: Path,
    images: int,
    shards: Sequence[int] = SHARDS,
    workers: Sequence[int] = WORKERS,
    batches: Sequence[int] = BATCHES,
    trainings: Sequence[tuple[int, int]] = TRAININGS,
) -> list[list[Row]]:
    """The rows of the cuts (one shard, one worker, batch 1 first), and those of the trainings."""
    bench = Bench(folder, images)
    cuts = [bench.cut(*cut) for cut in itertools.product(shards, workers, batches)]
    return [cuts, [bench.trainings(*count) for count in trainings]]


def differing(rows: Sequence[Row]) -> list[str]:
    """The rows that differ from the first."""
    return [row.cut for row in rows if row.digests != rows[0].digests]


def table(rows: Sequence[Row]) -> str:
    """Markdown, with the first twelve digits of each digest."""
    names = list(rows[0].digests)
    lines = [["", *names], ["---"] * (1 + len(names))]
    lines += [[row.cut, *(f"`{row.digests[name][:12]}`" for name in names)] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
