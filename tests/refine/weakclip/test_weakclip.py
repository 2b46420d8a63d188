"""WeakCLIP from photos to scores and predictions, on a few scenes of the demo."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.refine.chain import Chain, assert_same_weights
from wsss.artifacts.checkpoint import load_checkpoint
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.shard import Shard
from wsss.artifacts.stage import STAGES
from wsss.config.errors import ConfigError
from wsss.config.load import from_mapping, overlay
from wsss.config.model import Config
from wsss.data.datasets.classes import class_list, customise
from wsss.masks.seeds_stage import run as make_seeds
from wsss.masks.stage import run as make_masks
from wsss.refine import stage
from wsss.refine.training.trainer import Trainer
from wsss.refine.weakclip.method import class_texts

TRAIN = {
    "iterations": 4, "warmup": 1, "batch": 2, "checkpoint_every": 2, "crop": 64,
    "schedule": "cosine", "min_lr": 1e-5, "cat_max_ratio": 0.75, "photometric": True,
}  # fmt: skip
WEAKCLIP = {"width": 16, "channels": 16}


class Seeded(Chain):
    """The chain with seeds between the CAMs and the training."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, {"method": "weakclip", "train": TRAIN, "weakclip": WEAKCLIP})
        self.seeds = folder / "seeds.h5"
        png = folder / "png"
        arguments = STAGES["seeds"].arguments(self.config())
        make_seeds(self.manifest, "train", self.cams["train"], self.seeds, png, **arguments)

    def learn(self, config: Config, where: Path) -> Path:
        return self.train(config, where, self.seeds)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Seeded:
    return Seeded(tmp_path_factory.mktemp("weakclip"))


@pytest.fixture(scope="module")
def checkpoint(chain: Seeded) -> Path:
    return chain.learn(chain.config(), chain.folder / "trained")


def test_corrected_checkpoint_holds_no_clip(chain: Seeded, checkpoint: Path) -> None:
    tensors, made = load_checkpoint(checkpoint)
    assert {name.split(".")[0] for name in tensors} == {"prompt", "adapter", "matching", "decoder"}
    assert made.config["refine"]["method"] == "weakclip"
    assert any(name.startswith("seeds/") for name in made.inputs)
    with (checkpoint.parent / "loss.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["step", "lr", "loss", "seed", "boundary", "auxiliary"]
    assert len(rows) == TRAIN["iterations"]


@pytest.mark.slow
def test_published_leaks_a_learning_rate_into_clip(chain: Seeded, tmp_path: Path) -> None:
    trained = load_checkpoint(chain.learn(chain.config(variant="published"), tmp_path / "a"))[0]
    frozen = chain.config(variant="published", refine={"weakclip": {"zero_lr": "frozen"}})
    without = load_checkpoint(chain.learn(frozen, tmp_path / "b"))[0]
    assert {name.split(".")[0] for name in trained} == {"head", "text", "image"}
    assert {name.split(".")[0] for name in without} == {"prompt", "adapter", "matching", "decoder"}
    start = chain.learn(
        chain.config(variant="published", refine={"train": {"iterations": 1}}), tmp_path / "c"
    )
    before = load_checkpoint(start)[0]
    moved = [
        name for name, value in trained.items()
        if name.startswith("image") and not torch.equal(value, before[name])
    ]  # fmt: skip
    assert "image.blocks.0.attn.in_proj_weight" in moved


@pytest.mark.slow
def test_an_interrupted_training_ends_in_the_same_weights(
    chain: Seeded, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer._step

    def failing(self: Any, number: int, *args: Any) -> list[float]:
        if number == 3:
            raise OSError("pulled the plug")
        return step(self, number, *args)

    where = chain.folder / "interrupted"
    monkeypatch.setattr(Trainer, "_step", failing)
    with pytest.raises(OSError, match="plug"):
        chain.learn(chain.config(), where)
    monkeypatch.undo()
    assert_same_weights(chain.learn(chain.config(compute={"workers": 1}), where), checkpoint)


def test_scores_are_probabilities_of_the_tags(chain: Seeded, checkpoint: Path) -> None:
    path = chain.apply(chain.config(), checkpoint, chain.folder / "scores.h5")
    with Shard(path, kind="scores") as shard, Shard(chain.cams["train"]) as cams:
        for item in shard:
            assert item.attrs["classes"] == cams.read(item.id).attrs["classes"]
            total = item.arrays["score"].astype(np.float32).sum(0) + item.arrays["background"]
            np.testing.assert_allclose(total, 1, atol=2e-3)
            height, width = item.attrs["size"]
            assert item.attrs["grid"] == [-(-height // 4), -(-width // 4)]


@pytest.mark.slow
def test_without_tag_masking_any_label_may_win(chain: Seeded, tmp_path: Path) -> None:
    config = chain.config(variant="published")
    checkpoint = chain.learn(config, tmp_path)
    path = chain.apply(config, checkpoint, tmp_path / "scores.h5")
    others = 0
    with Shard(path, kind="scores") as shard, Shard(chain.cams["train"]) as cams:
        for item in shard:
            classes = item.attrs["classes"]
            stack = np.concatenate([item.arrays["background"][None], item.arrays["score"]])
            winners = set(np.unique(stack.argmax(0))) - {0}
            assert len(winners) == len(classes)  # each label that is kept wins somewhere
            others += len(set(classes) - set(cams.read(item.id).attrs["classes"]))
    assert others > 0
    arguments = STAGES["masks"].arguments(config)
    make_masks(chain.manifest, path, tmp_path / "masks.h5", tmp_path / "png", **arguments)


@pytest.mark.slow
@pytest.mark.parametrize("infer", [{}, {"grid": "floored"}, {"window": 64, "stride": 40}])
def test_predictions_do_not_depend_on_their_neighbours(
    chain: Seeded, checkpoint: Path, infer: dict[str, Any], tmp_path: Path
) -> None:
    config = chain.config(infer={"short_side": 80} | infer)
    whole, part = tmp_path / "whole.h5", tmp_path / "part.h5"
    chain.predict(config, checkpoint, whole)
    stage.predict(config, chain.manifest, "val", (1, 2), checkpoint, part, chain.folder / "cache")
    with Shard(whole, kind="predictions") as every, Shard(part) as some:
        for item in some:
            for name, array in every.read(item.id).arrays.items():
                np.testing.assert_array_equal(array, item.arrays[name])
        assert set(every.read(every.ids[0]).arrays) == {"single", "multi"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "weakclip",
    [
        {"tags_in_losses": "ignored", "padding": "labelled", "auxiliary_mean": "all"},
        {"tags_in_losses": "masked", "tags_in_masks": "ignored"},
        {"boundary": {"sigma_unit": "cells", "image": "sampled"}},
        {"prompts": 0},
        {"drop_path": 0.5, "class_token": "twice", "positions": "twice"},
        {"clip_lr": 0.01, "co_attention": "unchained"},
        {"out_indices": [1, 2, 3, 12], "adapter_lr": 0.0},
    ],
)
def test_every_option_trains(chain: Seeded, weakclip: dict[str, Any], tmp_path: Path) -> None:
    short = {"refine": {"train": {"iterations": 2, "warmup": 0, "short_side": 90}}}
    config = chain.config(**overlay(short, {"refine": {"weakclip": weakclip}}))
    with (chain.learn(config, tmp_path).parent / "loss.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert all(0 < float(row["loss"]) < 100 for row in rows)


def test_what_does_not_fit_is_refused(chain: Seeded, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="training images have no seed"):
        chain.train(chain.config(), tmp_path)
    other = chain.config(refine={"weakclip": {"width": 32}})
    with pytest.raises(ArtifactError, match=r"of another class list, encoder or refine\.weakclip"):
        chain.apply(other, checkpoint, tmp_path / "s.h5")
    with pytest.raises(ValueError, match=r"infer\.window is 60; expected a multiple"):
        chain.apply(chain.config(infer={"window": 60}), checkpoint, tmp_path / "s.h5")
    with pytest.raises(ConfigError, match=r"infer\.scores: cam is for weclip"):
        chain.config(infer={"scores": "cam"})
    with pytest.raises(ConfigError, match=r"infer\.stride must be at most"):
        chain.config(infer={"stride": 64})
    with pytest.raises(ConfigError, match=r"out_indices must rise"):
        chain.config(refine={"weakclip": {"out_indices": [3, 2, 4, 5]}})


def test_published_feeds_imagenet_normalisation(chain: Seeded) -> None:
    assert chain.config(variant="published").clip.normalization == "imagenet"
    assert chain.config().clip.normalization == "clip"


def test_texts_are_bare_names_or_what_the_configuration_says() -> None:
    config = from_mapping({"data": {"kind": "voc", "prompts": {"tvmonitor": "television"}}})
    classes = customise(class_list("voc"), config.data.prompts, None)
    texts = class_texts(config, classes)
    assert texts[:3] == ["background", "aeroplane", "bicycle"]
    assert "person" in texts  # not the synonyms of the class list
    assert texts[-1] == "television"
