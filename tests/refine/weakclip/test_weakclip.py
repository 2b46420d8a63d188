"""WeakCLIP from photos to scores and predictions, on a few scenes of the demo."""

import csv
from dataclasses import replace
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
from wsss.config.load import overlay
from wsss.data.datasets.classes import class_list, customise
from wsss.masks.stage import run as make_masks
from wsss.refine import stage
from wsss.refine.training.trainer import Trainer
from wsss.refine.weakclip.method import class_texts

TRAIN = {
    "iterations": 4, "warmup": 1, "batch": 2, "checkpoint_every": 2, "crop": 64,
    "schedule": "cosine", "min_lr": 1e-5, "cat_max_ratio": 0.75, "photometric": True,
}  # fmt: skip
WEAKCLIP = {"width": 16, "channels": 16}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    refine = {"method": "weakclip", "train": TRAIN, "weakclip": WEAKCLIP}
    return Chain(tmp_path_factory.mktemp("weakclip"), refine)


@pytest.fixture(scope="module")
def checkpoint(chain: Chain) -> Path:
    return chain.train(chain.config(), chain.folder / "trained")


def test_corrected_checkpoint_holds_no_clip(chain: Chain, checkpoint: Path) -> None:
    tensors, made = load_checkpoint(checkpoint)
    assert {name.split(".")[0] for name in tensors} == {"prompt", "adapter", "matching", "decoder"}
    assert made.config["refine"]["method"] == "weakclip"
    assert any(name.startswith("seeds/") for name in made.inputs)
    with (checkpoint.parent / "loss.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["step", "lr", "loss", "seed", "boundary", "auxiliary"]
    assert len(rows) == TRAIN["iterations"]


def test_published_leaks_a_learning_rate_into_clip(chain: Chain, tmp_path: Path) -> None:
    trained = load_checkpoint(chain.train(chain.config(variant="published"), tmp_path / "a"))[0]
    frozen = chain.config(variant="published", refine={"weakclip": {"zero_lr": "frozen"}})
    without = load_checkpoint(chain.train(frozen, tmp_path / "b"))[0]
    assert {name.split(".")[0] for name in trained} == {"head", "text", "image"}
    assert {name.split(".")[0] for name in without} == {"prompt", "adapter", "matching", "decoder"}
    start = chain.train(
        chain.config(variant="published", refine={"train": {"iterations": 1}}), tmp_path / "c"
    )
    before = load_checkpoint(start)[0]
    moved = [
        name for name, value in trained.items()
        if name.startswith("image") and not torch.equal(value, before[name])
    ]  # fmt: skip
    assert "image.blocks.0.attn.in_proj_weight" in moved


def test_an_interrupted_training_ends_in_the_same_weights(
    chain: Chain, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer._step

    def failing(self: Any, number: int, *args: Any) -> list[float]:
        if number == 3:
            raise OSError("pulled the plug")
        return step(self, number, *args)

    where = chain.folder / "interrupted"
    monkeypatch.setattr(Trainer, "_step", failing)
    with pytest.raises(OSError, match="plug"):
        chain.train(chain.config(), where)
    monkeypatch.undo()
    assert_same_weights(chain.train(chain.config(compute={"workers": 1}), where), checkpoint)


def test_scores_are_probabilities_of_the_tags(chain: Chain, checkpoint: Path) -> None:
    path = chain.apply(chain.config(), checkpoint, chain.folder / "scores.h5")
    with Shard(path, kind="scores") as shard, Shard(chain.cams["train"]) as cams:
        for item in shard:
            assert item.attrs["classes"] == cams.read(item.id).attrs["classes"]
            total = item.arrays["score"].astype(np.float32).sum(0) + item.arrays["background"]
            np.testing.assert_allclose(total, 1, atol=2e-3)
            height, width = item.attrs["size"]
            assert item.attrs["grid"] == [-(-height // 4), -(-width // 4)]


def test_without_tag_masking_any_label_may_win(chain: Chain, tmp_path: Path) -> None:
    config = chain.config(variant="published")
    checkpoint = chain.train(config, tmp_path)
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


@pytest.mark.parametrize("infer", [{}, {"grid": "floored"}, {"window": 64, "stride": 40}])
def test_predictions_do_not_depend_on_their_neighbours(
    chain: Chain, checkpoint: Path, infer: dict[str, Any], tmp_path: Path
) -> None:
    config = chain.config(infer={"short_side": 80} | infer)
    whole, part = tmp_path / "whole.h5", tmp_path / "part.h5"
    chain.predict(config, checkpoint, whole)
    chain.predict(config, checkpoint, part, (1, 2))
    with Shard(whole, kind="predictions") as every, Shard(part) as some:
        for item in some:
            for name, array in every.read(item.id).arrays.items():
                np.testing.assert_array_equal(array, item.arrays[name])
        assert set(every.read(every.ids[0]).arrays) == {"single", "multi"}


EVERY = {"seed", "boundary", "auxiliary"}


@pytest.mark.parametrize(
    ("weakclip", "acts_on"),
    [
        ({"tags_in_losses": "ignored"}, {"boundary"}),
        ({"tags_in_losses": "masked"}, EVERY),
        ({"padding": "labelled"}, {"boundary"}),
        ({"auxiliary_mean": "all"}, {"auxiliary"}),
        ({"boundary": {"sigma_unit": "cells"}}, {"boundary"}),
        ({"boundary": {"image": "sampled"}}, {"boundary"}),
        ({"prompts": 0}, EVERY),
        ({"class_token": "twice"}, EVERY),
        ({"drop_path": 0.9}, EVERY),
        ({"co_attention": "unchained"}, EVERY),
        ({"out_indices": [1, 2, 3, 12]}, {"seed", "boundary"}),
        ({"seed_weight": 2.0}, set()),
        ({"auxiliary_weight": 2.0}, set()),
    ],
)
def test_every_option_acts_on_its_loss(
    chain: Chain, weakclip: dict[str, Any], acts_on: set[str]
) -> None:
    padded = {"refine": {"train": {"short_side": 30}}}
    before = chain.loss(chain.config(**padded))
    after = chain.loss(chain.config(**overlay(padded, {"refine": {"weakclip": weakclip}})))
    assert {name for name in before if after[name] != before[name]} == {"loss"} | acts_on


@pytest.mark.parametrize(
    ("weakclip", "rates"),
    [
        ({}, [1.0, 1.0]),
        ({"adapter_lr": 0.0}, [1.0]),
        ({"adapter_lr": 0.0, "zero_lr": "leak"}, [1.0, 0.0, 0.0]),
        ({"clip_lr": 0.01}, [1.0, 1.0, 0.01]),
    ],
)
def test_learning_rates_of_the_groups(
    chain: Chain, weakclip: dict[str, Any], rates: list[float]
) -> None:
    refiner = chain.refiner(chain.config(refine={"weakclip": weakclip}))
    assert [group.relative for group in refiner.parameter_groups()] == rates


def test_what_does_not_fit_is_refused(chain: Chain, checkpoint: Path, tmp_path: Path) -> None:
    paths = (chain.manifest, [chain.cams["train"]], *(tmp_path / name for name in "abcd"))
    with pytest.raises(ArtifactError, match="training images have no seed"):
        stage.train(*paths, **STAGES["refine_train"].arguments(chain.config()))
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


def test_published_feeds_imagenet_normalisation(chain: Chain) -> None:
    assert chain.config(variant="published").clip.normalization == "imagenet"
    assert chain.config().clip.normalization == "clip"


def test_positions_differ_where_the_grid_is_not_that_of_the_crop(chain: Chain) -> None:
    once, twice = (
        chain.refiner(chain.config(refine={"weakclip": {"positions": name}}))
        for name in ("once", "twice")
    )
    for refiner in (once, twice):
        refiner.train_mode(False)
    with torch.inference_mode():
        for side, same in ((64, True), (96, False)):
            images = torch.ones(1, 3, side, side)
            assert torch.equal(once.logits(images), twice.logits(images)) == same


def test_texts_are_bare_names_or_what_the_configuration_says(chain: Chain) -> None:
    prompts = {"tvmonitor": "television"}
    classes = customise(class_list("voc"), prompts, None)
    setup = chain.refiner(chain.config()).setup
    texts = class_texts(replace(setup, classes=classes, prompts=prompts))
    assert texts[:3] == ["background", "aeroplane", "bicycle"]
    assert "person" in texts  # not the synonyms of the class list
    assert texts[-1] == "television"
