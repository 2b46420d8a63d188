"""What every method must do: `class TestToy(MethodTests)` in a method's tests gets all of it."""

import csv
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from tests.refine.chain import Chain, assert_same_weights, cut_short
from wsss.artifacts.checkpoint import load_checkpoint
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.shard import Shard
from wsss.compute.threads import fixed_threads
from wsss.config.base import overlay
from wsss.refine.training.trainer import Trainer

TRAIN = {"iterations": 4, "warmup": 1, "batch": 3, "checkpoint_every": 2, "crop": 64}
Changes = Mapping[str, Any]


def option(method: str, **values: Any) -> Changes:
    return {"refine": {method: values}}


def _first_losses(curve: Path) -> Sequence[float]:
    """Of the first step: the loss and its parts."""
    with curve.open() as stream:
        row = next(csv.DictReader(stream))
    return [float(value) for name, value in row.items() if name not in ("step", "lr")]


class MethodTests:
    """Tests of a method on a few scenes of the demo, with its small CLIP.

    The module's `CHAIN` is the configuration of the method: tests/refine/conftest.py.
    """

    trained: ClassVar[Collection[str]]
    """Parts of the network in the checkpoint."""
    losses: ClassVar[Sequence[str]]
    """Terms of the loss, as in loss.csv."""
    inference: ClassVar[Sequence[Changes]] = ({},)
    """Changes of the configuration that predict in another way."""
    acting: ClassVar[Changes] = {}
    """Changes without which some options have no effect."""
    step: ClassVar[int] = 0
    """Step at which every option has an effect."""
    options: ClassVar[Sequence[tuple[Changes, set[str]]]]
    """Changes of the configuration, and the terms of the loss that they change."""

    resized: ClassVar[Changes | None] = None
    """Changes with which what is trained has other shapes; None: no option changes them."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        for names, values in (("changes", self.inference), ("changed, terms", self.options)):
            if names.split(",")[0] in metafunc.fixturenames:
                metafunc.parametrize(names, values)

    def test_checkpoint_holds_what_is_trained_alone(self, chain: Chain, checkpoint: Path) -> None:
        tensors, provenance = load_checkpoint(checkpoint)
        assert {name.split(".")[0] for name in tensors} == set(self.trained)
        assert provenance.config["refine"]["method"] == chain.config().refine.method
        with (checkpoint.parent / "loss.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        assert list(rows[0]) == ["step", "lr", "loss", *self.losses]
        assert len(rows) == TRAIN["iterations"]

    @pytest.mark.slow
    def test_an_interrupted_training_ends_in_the_same_weights(
        self, chain: Chain, checkpoint: Path, tmp_path: Path
    ) -> None:
        with cut_short(Trainer, "_step", lambda index, *_: index == 3):
            chain.train(chain.config(), tmp_path)
        again = chain.train(chain.config(compute={"workers": 1}), tmp_path)
        assert_same_weights(again, checkpoint)

    @pytest.mark.slow
    def test_in_bfloat16_it_stays_close(
        self, chain: Chain, checkpoint: Path, scores: Path, tmp_path: Path
    ) -> None:
        rounded = chain.config(compute={"precision": "bf16"})
        again = chain.train(rounded, tmp_path)
        assert load_checkpoint(again)[1].config["compute.precision"] == "bf16"
        assert "compute.precision" not in load_checkpoint(checkpoint)[1].config
        losses = [_first_losses(path.parent / "loss.csv") for path in (again, checkpoint)]
        np.testing.assert_allclose(*losses, rtol=0.05)
        assert not np.array_equal(*losses)
        with Shard(chain.apply(rounded, checkpoint, tmp_path / "s.h5")) as shard:
            actual = {item.id: item for item in shard}
        with Shard(scores) as shard:
            for item in shard:
                assert actual[item.id].key != item.key
                difference = np.abs(actual[item.id].arrays["score"] - item.arrays["score"])
                assert 0 < difference.max() < 0.1

    def test_scores_are_probabilities_of_the_tags(self, chain: Chain, scores: Path) -> None:
        with Shard(scores, kind="scores") as shard, Shard(chain.cams["train"]) as cams:
            for item in shard:
                assert item.attrs["classes"] == cams.read(item.id).attrs["classes"]
                total = item.arrays["score"].astype(np.float32).sum(0) + item.arrays["background"]
                np.testing.assert_allclose(total, 1, atol=2e-3)

    @pytest.mark.slow
    def test_predictions_do_not_depend_on_their_neighbours_or_threads(
        self, chain: Chain, checkpoint: Path, changes: Changes, tmp_path: Path
    ) -> None:
        config = chain.config(**changes)
        whole = chain.predict(config, checkpoint, tmp_path / "whole.h5")
        with fixed_threads(3):
            part = chain.predict(config, checkpoint, tmp_path / "part.h5", (3, 3))
        with Shard(whole, kind="predictions") as shard, Shard(part) as last:
            assert 0 < len(last.ids) < len(shard.ids)
            for item in last:
                assert set(item.arrays) == {"single", "multi"}
                for name, array in shard.read(item.id).arrays.items():
                    assert list(array.shape) == item.attrs["size"]
                    np.testing.assert_array_equal(array, item.arrays[name])

    def test_crf_adds_protocols(self, chain: Chain, checkpoint: Path, tmp_path: Path) -> None:
        config = chain.config(infer={"crf": True})
        with Shard(chain.predict(config, checkpoint, tmp_path / "crf.h5", (3, 3))) as shard:
            names = set(shard.read(shard.ids[0]).arrays)
        assert names == {"single", "multi", "single_crf", "multi_crf"}

    @pytest.fixture(scope="class")
    @classmethod
    def first_loss(cls, chain: Chain) -> dict[str, float]:
        return chain.loss(chain.config(**cls.acting), cls.step)

    @pytest.mark.slow
    def test_every_option_changes_its_losses(
        self, chain: Chain, first_loss: dict[str, float], changed: Changes, terms: set[str]
    ) -> None:
        loss = chain.loss(chain.config(**overlay(self.acting, changed)), self.step)
        assert {name for name in loss if loss[name] != first_loss[name]} == {"loss"} | terms

    def test_a_checkpoint_of_another_width_is_refused(
        self, chain: Chain, checkpoint: Path, tmp_path: Path
    ) -> None:
        if self.resized is None:
            pytest.skip("no option changes the shapes of what is trained")
        other = chain.config(**self.resized)
        method = other.refine.method
        message = rf"is of another class list, encoder or refine\.{method}"
        with pytest.raises(ArtifactError, match=message):
            chain.apply(other, checkpoint, tmp_path / "scores.h5")


def assert_normalised_cams(path: Path) -> None:
    """Scores without a background, of which each is 0 or has the peak 1."""
    with Shard(path, kind="scores") as shard:
        for item in shard:
            assert set(item.arrays) == {"score"}
            peaks = item.arrays["score"].max(axis=(1, 2))
            assert ((peaks == 1) | (peaks == 0)).all()
