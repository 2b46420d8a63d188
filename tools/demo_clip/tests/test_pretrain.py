"""The pretraining in small: it learns, repeats itself, and tells the truth in captions."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tools.demo_clip.captions import caption
from tools.demo_clip.model import build
from tools.demo_clip.pretrain import Recipe, pretrain
from tools.demo_clip.teacher import TeacherRecipe
from wsss.data.datasets.words import DEMO_BACKGROUNDS, DEMO_NAMES

TINY = Recipe(
    scenes=64,
    teacher=TeacherRecipe(steps=2, batch=16),
    patch_steps=3,
    patch_batch=8,
    steps=4,
    batch=16,
    whole=0.5,
    threads=1,
)


def test_captions_name_only_what_is_there() -> None:
    rng = np.random.default_rng(0)
    said = [caption(rng, ("boat", "cat"), ("water", "sky")) for _ in range(300)]
    for text in said:
        words = set(re.findall(r"[a-z]+", text))
        assert words & set(DEMO_NAMES) <= {"boat", "cat"}
        assert words & set(DEMO_BACKGROUNDS) <= {"water", "sky"}
    assert {"a clean origami cat.", "a clean origami water."} <= set(said)
    assert len(set(said)) > 40


@pytest.fixture
def one_thread() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_writes_loadable_weights_and_repeats_itself(tmp_path: Path) -> None:
    phases = []

    def progress(phase: str, done: int, total: int, loss: float) -> None:
        phases.append((phase, done, total))

    report = pretrain(tmp_path / "a.safetensors", seed=2, recipe=TINY, progress=progress)
    pretrain(tmp_path / "b.safetensors", seed=2, recipe=TINY)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert build(tmp_path / "a.safetensors").logit_scale.exp().item() == pytest.approx(100)
    assert ("drawing scenes", 64, 64) in phases
    assert ("training the teacher", 2, 2) in phases
    assert phases[-1] == ("training the CLIP", 7, 7)
    assert report["steps"] == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_loss_falls(tmp_path: Path) -> None:
    recipe = replace(TINY, patch_steps=1, steps=40, batch=32, whole=0.0, rate=1e-3)
    report = pretrain(tmp_path / "weights.safetensors", recipe=recipe)
    losses = report["losses"]
    assert isinstance(losses, list)
    assert sum(losses[10:20]) / 10 > sum(losses[-10:]) / 10 > 0
