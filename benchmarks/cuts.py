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
from wsss.config.load import from_mapping, overlay
from wsss.config.model import Config
from wsss.data.ingest.stage import ingest
from wsss.demo.dataset import generate
from wsss.masks.stage import run as make_masks
from wsss.refine import stage as refine
from wsss.retrain.train import train as retrain

SHARDS, WORKERS, BATCHES = (1, 3, 7), (1, 2), (1, 4)
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
    """How the work was cut, and what came of it."""

    cut: str
    digests: dict[str, str]
    """By product."""


class Bench:
    """The demo's images in a folder, and what is made of them.

    Args:
        folder: to work in; what is there is removed.
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
        """The configuration with something laid over it."""
        return from_mapping(overlay(self._base, changes))

    def cut(self, shards: int, workers: int, batch: int) -> Row:
        """CAMs and masks, in so many shards."""
        out = self._folder / f"{shards}-{workers}-{batch}"
        config = self.config(compute={"workers": workers, "batch": batch})
        plain = self.config(compute={"workers": workers}, refine={"method": "none"})
        found: dict[str, dict[str, str]] = {"CAMs": {}, "masks": {}}
        for part in range(1, shards + 1):
            cams, masks = (out / f"{n}/{part}.h5" for n in ("cams", "masks"))
            cache = self._folder / "cache"
            arguments = STAGES["cams"].arguments(config)
            make_cams(self._manifest, "train", (part, shards), cams, cache, **arguments)
            arguments = STAGES["masks"].arguments(plain)
            make_masks(self._manifest, cams, masks, out / f"png/{part}", **arguments)
            found["CAMs"] |= _contents(cams)
            found["masks"] |= _contents(masks)
        cut = f"shards {shards}, workers {workers}, batch {batch}"
        return Row(cut, {name: digest_json(images) for name, images in found.items()})

    def trainings(self, number: int) -> Row:
        """Refiner and segmenter, from the start."""
        out, first = self._folder / f"training-{number}", self._folder / "1-1-1"
        config, cache = self.config(compute={"workers": number}), self._folder / "cache"
        args = (out / "refiner.safetensors", out / "refiner.csv", out / "refiner")
        arguments = STAGES["refine_train"].arguments(config)
        refine.train(self._manifest, [first / "cams/1.h5"], *args, cache, **arguments)
        args = (out / "segmenter.safetensors", out / "segmenter.csv", out / "segmenter")
        values = STAGES["retrain"].select(config)
        masks = [first / "masks/1.h5"]
        retrain(self._manifest, masks, *args, **values, compute=config.compute)
        names = ("refiner", "segmenter")
        tensors = {name: load_checkpoint(out / f"{name}.safetensors")[0] for name in names}
        found = {name: weights_digest(one) for name, one in tensors.items()}
        return Row(f"training {number}, {number} data workers", found)


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
) -> list[list[Row]]:
    """The rows of the cuts (one shard, one worker, batch 1 first), and those of the trainings."""
    bench = Bench(folder, images)
    cuts = [bench.cut(*cut) for cut in itertools.product(shards, workers, batches)]
    return [cuts, [bench.trainings(number) for number in (1, 2)]]


def differing(rows: Sequence[Row]) -> list[str]:
    """The rows that are not as the first."""
    return [row.cut for row in rows if row.digests != rows[0].digests]


def table(rows: Sequence[Row]) -> str:
    """Markdown, with the first twelve digits of each digest."""
    names = list(rows[0].digests)
    lines = [["", *names], ["---"] * (1 + len(names))]
    lines += [[row.cut, *(f"`{row.digests[name][:12]}`" for name in names)] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
