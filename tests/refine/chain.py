"""Manifest and CAMs of a few scenes of the demo, made with its small CLIP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from wsss.artifacts.checkpoint import load_checkpoint
from wsss.artifacts.stage import STAGES
from wsss.cams.stage import run as make_cams
from wsss.config.load import from_mapping, overlay
from wsss.config.model import Config
from wsss.data.ingest.stage import ingest
from wsss.demo.dataset import generate
from wsss.refine import stage


class Chain:
    """Manifest and CAMs of a small demo, and what the refine stage makes of them."""

    def __init__(self, folder: Path, refine: dict[str, Any], **sections: Any) -> None:
        self.folder = folder
        root = folder / "data"
        generate(root, train=7, val=3)
        for masks in root.rglob("SegmentationClass"):  # no pixel label is there to be opened
            masks.rename(folder / "hidden")
        self.base: dict[str, Any] = {
            "compute": {"device": "cpu", "workers": 2},
            "data": {"root": str(root), "demo_images": [7, 3]},
            "refine": refine,
            "infer": {"crf": False},
            **sections,
        }
        self.manifest = folder / "manifest"
        config = self.config()
        ingest(self.manifest, variant=config.variant, data=config.data, compute=config.compute)
        self.cams = {split: folder / f"cams-{split}.h5" for split in ("train", "val")}
        for split, path in self.cams.items():
            arguments = STAGES["cams"].arguments(self.config())
            make_cams(self.manifest, split, (1, 1), path, folder / "cache", **arguments)

    def config(self, **changes: Any) -> Config:
        return from_mapping(overlay(self.base, changes))

    def train(self, config: Config, where: Path, seeds: Path | None = None) -> Path:
        out = where / "checkpoint.safetensors"
        log = where / "loss.csv"
        args = (self.manifest, [self.cams["train"]], out, log, where / "work")
        stage.train(config, *args, self.folder / "cache", [] if seeds is None else [seeds])
        return out

    def apply(self, config: Config, checkpoint: Path, out: Path, split: str = "train") -> Path:
        cache = self.folder / "cache"
        stage.apply(config, self.manifest, split, self.cams[split], checkpoint, out, cache)
        return out

    def predict(self, config: Config, checkpoint: Path, out: Path) -> Path:
        stage.predict(config, self.manifest, "val", (1, 1), checkpoint, out, self.folder / "cache")
        return out


def assert_same_weights(one: Path, other: Path) -> None:
    """Two checkpoints hold the same tensors."""
    found, expected = load_checkpoint(one)[0], load_checkpoint(other)[0]
    assert found.keys() == expected.keys()
    for name in expected:
        assert torch.equal(found[name], expected[name]), name
