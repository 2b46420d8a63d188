"""Manifest and CAMs of a few scenes of the demo, made with its small CLIP."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from tests.builders import CLIP_ES
from wsss.artifacts.checkpoint import load_checkpoint
from wsss.artifacts.stage import STAGES
from wsss.cams.stage import run as make_cams
from wsss.clip.input import EncoderInput
from wsss.config.base import overlay
from wsss.config.load import from_mapping
from wsss.config.model import Config
from wsss.data.ingest.stage import ingest
from wsss.data.manifest_folder import load
from wsss.demo.dataset import generate
from wsss.masks.seeds_stage import run as make_seeds
from wsss.refine import stage
from wsss.refine.base import Refiner
from wsss.refine.inputs import CamSet, SeedSet
from wsss.refine.load import build_refiner, load_encoders
from wsss.refine.predict import predict
from wsss.refine.training.crops import CropStream
from wsss.refine.training.run import crop_stream


class Chain:
    """Manifest and CAMs of a small demo, and what the refine stage makes of them."""

    def __init__(
        self, folder: Path, refine: dict[str, Any], *, train: int = 7, val: int = 3, **sections: Any
    ) -> None:
        self.folder = folder
        root = folder / "data"
        generate(root, train=train, val=val)
        for masks in root.rglob("SegmentationClass"):  # no pixel label is there to be opened
            masks.rename(folder / "hidden")
        small = {
            "compute": {"device": "cpu", "workers": 2},
            "data": {"root": str(root), "demo_images": [train, val]},
            "refine": overlay({"train": {"threads": 1}}, refine),
            "infer": {"crf": False},
        }
        self.base: dict[str, Any] = overlay(overlay(CLIP_ES, small), sections)
        self.manifest = folder / "manifest"
        ingest(self.manifest, **STAGES["ingest"].arguments(self.config()))
        self.cams = {split: folder / f"cams-{split}.h5" for split in ("train", "val")}
        for split, path in self.cams.items():
            arguments = STAGES["cams"].arguments(self.config())
            make_cams(self.manifest, split, (1, 1), path, folder / "cache", **arguments)

    def config(self, **changes: Any) -> Config:
        return from_mapping(overlay(self.base, changes))

    def train(self, config: Config, where: Path, cams: Path | None = None) -> Path:
        out, cams = where / "checkpoint.safetensors", cams or self.cams["train"]
        paths = (self.manifest, [cams], out, where / "loss.csv", where / "work")
        seed_shards = [self.seeds()] if config.refine.needs_seeds else []
        stage.train(
            *paths, self.folder / "cache", seed_shards, where / "efficiency.json",
            **STAGES["refine_train"].arguments(config),
        )  # fmt: skip
        return out

    def apply(self, config: Config, checkpoint: Path, out: Path, cams: Path | None = None) -> Path:
        paths = (cams or self.cams["train"], checkpoint, out, self.folder / "cache")
        stage.apply(self.manifest, "train", *paths, **STAGES["refine_apply"].arguments(config))
        return out

    def predict(
        self,
        config: Config,
        checkpoint: Path,
        out: Path,
        shard: tuple[int, int] = (1, 1),
        *between: Path | None,
    ) -> Path:
        """Predictions; ``between`` are the arguments ``planes_to`` and ``planes``."""
        paths = (checkpoint, out, self.folder / "cache", *between)
        predict(self.manifest, "val", shard, *paths, **STAGES["refine_predict"].arguments(config))
        return out

    def refiner(self, config: Config, seed: int = 0) -> Refiner[Any]:
        """A refiner with a random start."""
        cache = self.folder / "cache"
        inputs = EncoderInput(config.clip, cache, device="cpu")
        _, classes = load(self.manifest)
        sections = {"dino": config.dino}
        encoders = load_encoders(config.refine, config.cams, sections, cache, device="cpu")
        return build_refiner(
            inputs, classes, clip=config.clip, cams=config.cams, refine=config.refine,
            prompts=config.data.prompts, encoders=encoders, infer=config.infer, seed=seed,
            embeddings=cache,
        )  # fmt: skip

    def stream(self, config: Config, refiner: Refiner[Any]) -> CropStream:
        """Crops as the training draws them, with labels where it gives them."""
        samples = load(self.manifest)[0].split("train")
        seeds = SeedSet([self.seeds()], samples) if config.refine.needs_seeds else None
        return crop_stream(
            refiner, CamSet([self.cams["train"]], samples), seeds, config.refine.train,
            seed=0, workers=1, cache=self.folder / "cache",
        )  # fmt: skip

    def loss(self, config: Config, step: int = 0) -> dict[str, float]:
        """The losses of a freshly built refiner on the first batch."""
        refiner = self.refiner(config)
        refiner.train_mode(True)
        torch.manual_seed(0)
        losses = refiner.loss(step, next(self.stream(config, refiner).batches(0)))
        return {name: value.item() for name, value in losses.items()}

    def seeds(self) -> Path:
        """A shard of hard seeds of the training images."""
        path = self.folder / "seeds.h5"
        if not path.exists():
            png = self.folder / "png"
            arguments = STAGES["seeds"].arguments(self.config())
            make_seeds(self.manifest, "train", self.cams["train"], path, png, **arguments)
        return path


class Cut(BaseException):
    """Stands for the end of a process."""


@contextmanager
def cut_short(loop: type, method: str, at: Callable[..., bool]) -> Iterator[None]:
    """The first call of a loop's method for whose arguments `at` is true ends the training."""
    original = getattr(loop, method)

    def cut(self: Any, *arguments: Any, **named: Any) -> Any:
        if at(*arguments):
            raise Cut
        return original(self, *arguments, **named)

    with mock.patch.object(loop, method, cut), pytest.raises(Cut):
        yield


def assert_same_weights(first: Path, second: Path) -> None:
    """Two checkpoints hold the same tensors."""
    actual, expected = load_checkpoint(first)[0], load_checkpoint(second)[0]
    assert actual.keys() == expected.keys()
    for name in expected:
        assert torch.equal(actual[name], expected[name]), name
