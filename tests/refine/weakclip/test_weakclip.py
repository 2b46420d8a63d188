"""WeakCLIP from photos to scores and predictions, on a few scenes of the demo."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.refine.chain import Chain
from tests.refine.every_method import TRAIN, MethodTests, option
from wsss.artifacts.checkpoint import load_checkpoint
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.shard import Shard
from wsss.artifacts.stage import STAGES
from wsss.config.errors import ConfigError
from wsss.data.datasets.classes import class_list, customise
from wsss.masks.stage import run as make_masks
from wsss.refine import stage
from wsss.refine.weakclip.method import class_texts

PARTS = {"prompt", "adapter", "matching", "decoder"}
TERMS = {"seed", "boundary", "auxiliary"}
PADDED = {"refine": {"train": {"short_side": 30}}}
CHAIN = {
    "refine": {
        "method": "weakclip",
        "train": TRAIN | {
            "batch": 2, "schedule": "cosine", "min_lr": 1e-5, "cat_max_ratio": 0.75,
            "photometric": True,
        },
        "weakclip": {"width": 16, "channels": 16},
    },
}  # fmt: skip


class TestWeakClip(MethodTests):
    trained = PARTS  # and no CLIP
    losses = ("seed", "boundary", "auxiliary")
    inference = tuple(
        {"infer": {"short_side": 80} | i}
        for i in ({}, {"grid": "floored"}, {"window": 64, "stride": 40})
    )
    acting = PADDED
    resized = option("weakclip", width=32)
    options = (
        (option("weakclip", tags_in_losses="ignored"), {"boundary"}),
        (option("weakclip", tags_in_losses="masked"), TERMS),
        (option("weakclip", crop_scaling="opencv"), TERMS),
        (option("weakclip", small_photos="corner"), TERMS),
        (option("weakclip", padding="labelled"), {"boundary"}),
        (option("weakclip", auxiliary_mean="all"), {"auxiliary"}),
        (option("weakclip", boundary={"sigma_unit": "cells"}), {"boundary"}),
        (option("weakclip", boundary={"image": "sampled"}), {"boundary"}),
        (option("weakclip", prompts=0), TERMS),
        (option("weakclip", class_token="twice"), TERMS),
        (option("weakclip", drop_path=0.9), TERMS),
        (option("weakclip", co_attention="unchained"), TERMS),
        (option("weakclip", out_indices=[1, 2, 3, 12]), {"seed", "boundary"}),
        (option("weakclip", seed_weight=2.0), set()),
        (option("weakclip", auxiliary_weight=2.0), set()),
    )


def test_the_seeds_are_in_the_provenance(checkpoint: Path) -> None:
    assert any(name.startswith("seeds/") for name in load_checkpoint(checkpoint)[1].inputs)


def test_scores_have_a_cell_for_four_by_four_pixels(scores: Path) -> None:
    with Shard(scores) as shard:
        for item in shard:
            height, width = item.attrs["size"]
            assert item.attrs["grid"] == [-(-height // 4), -(-width // 4)]


@pytest.fixture(scope="module")
def published(chain: Chain) -> Path:
    return chain.train(chain.config(variant="published"), chain.folder / "published")


def test_published_leaks_a_learning_rate_into_clip(
    chain: Chain, published: Path, tmp_path: Path
) -> None:
    trained = load_checkpoint(published)[0]
    frozen = chain.config(variant="published", refine={"weakclip": {"zero_lr": "frozen"}})
    without = load_checkpoint(chain.train(frozen, tmp_path / "b"))[0]
    assert {name.split(".")[0] for name in trained} == {"head", "text", "image"}
    assert {name.split(".")[0] for name in without} == PARTS
    one_step = chain.config(variant="published", refine={"train": {"iterations": 1}})
    before = load_checkpoint(chain.train(one_step, tmp_path / "c"))[0]
    moved = [
        name for name, value in trained.items()
        if name.startswith("image") and not torch.equal(value, before[name])
    ]  # fmt: skip
    assert "image.blocks.0.attn.in_proj_weight" in moved


@pytest.mark.slow
def test_without_tag_masking_any_label_may_win(
    chain: Chain, published: Path, tmp_path: Path
) -> None:
    config = chain.config(variant="published")
    path = chain.apply(config, published, tmp_path / "scores.h5")
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


def test_crops_are_padded_after_they_are_normalised(chain: Chain) -> None:
    side = chain.config().refine.train.crop
    config = chain.config(refine={"train": {"scale_range": [0.5, 0.5], "photometric": False}})
    batch = next(chain.stream(config, chain.refiner(config)).batches(0))
    outside = ~batch.valid
    assert 0 < int(outside.sum()) < outside.numel()
    assert batch.images.shape[-2:] == (side, side)
    assert not batch.images.movedim(1, -1)[outside].any()
    assert batch.images.movedim(1, -1)[batch.valid].abs().mean() > 0.1


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
    with pytest.raises(ValueError, match=r"infer\.window is 60; expected a multiple"):
        chain.apply(chain.config(infer={"window": 60}), checkpoint, tmp_path / "s.h5")
    with pytest.raises(ConfigError, match=r"infer\.scores: cam is for weclip"):
        chain.config(infer={"scores": "cam"})
    with pytest.raises(ConfigError, match=r"infer\.stride must be at most"):
        chain.config(infer={"stride": 64})
    with pytest.raises(ConfigError, match=r"out_indices must rise"):
        chain.config(refine={"weakclip": {"out_indices": [3, 2, 4, 5]}})


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


@pytest.mark.parametrize("size", [(20, 600), (600, 20), (9, 9)])
@pytest.mark.parametrize("grid", ["floored", "aligned"])
def test_narrow_photos_have_two_patches_along_each_side(
    chain: Chain, size: tuple[int, int], grid: str
) -> None:
    """The coarsest map of the adapter halves the grid."""
    refiner = chain.refiner(chain.config(infer={"grid": grid}))
    refiner.train_mode(False)
    photo = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    probs = refiner.probabilities(photo)["multi"]
    assert probs.shape == (11, *size)
    torch.testing.assert_close(probs.sum(0), torch.ones(size))
