"""States of some steps that a training keeps."""

from pathlib import Path

import pytest
import torch

from tests.builders import provenance
from tests.refine.training.test_trainer import SETTINGS, Problem, interrupt
from wsss.artifacts.checkpoint import load_checkpoint, save_checkpoint
from wsss.artifacts.errors import ArtifactError
from wsss.refine.training.snapshots import FOLDER, Snapshots, kept_snapshots
from wsss.refine.training.trainer import Trainer

MADE = provenance(stage="refine_train")


def _fit(problem: Problem, folder: Path, every: int | None = 5, key: str = "t") -> None:
    """Train for 12 steps; states are resumed from every fourth."""
    snapshots = Snapshots(folder / FOLDER, every, 12, MADE, key, {"f": 1}) if every else None
    trainer = Trainer(
        problem.module, SETTINGS, seed=3, work=folder, key=key, description="test",
        snapshots=snapshots,
    )  # fmt: skip
    trainer.fit(problem.batches, problem.losses)
    save_checkpoint(folder / "checkpoint.safetensors", problem.module.state_dict(), MADE)


def _snapshots(folder: Path) -> dict[int, dict[str, torch.Tensor]]:
    paths = kept_snapshots(folder / "checkpoint.safetensors")
    return {step: load_checkpoint(path)[0] for step, path in paths.items()}


def test_the_first_the_last_and_those_between(tmp_path: Path) -> None:
    weights = {}
    problem = Problem()

    def note(step: int) -> None:
        weights[step] = {n: t.clone() for n, t in problem.module.state_dict().items()}

    problem.events = {f"at_{step}": lambda step=step: note(step) for step in range(12)}
    _fit(problem, tmp_path)
    note(12)
    snapshots = _snapshots(tmp_path)
    assert list(snapshots) == [0, 5, 10, 12]
    for step, tensors in snapshots.items():
        assert all(torch.equal(tensors[name], weights[step][name]) for name in tensors), step


def test_a_broken_training_goes_on_and_keeps_the_rest(tmp_path: Path) -> None:
    _fit(Problem(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        _fit(Problem(at_7=interrupt), tmp_path / "broken")
    again = Problem()
    _fit(again, tmp_path / "broken")
    assert again.seen == list(range(4, 12))
    whole, broken = _snapshots(tmp_path / "whole"), _snapshots(tmp_path / "broken")
    assert list(whole) == list(broken)
    for step, tensors in whole.items():
        assert all(torch.equal(tensors[name], broken[step][name]) for name in tensors)


def test_a_finished_training_runs_again_for_states_that_it_lacks(tmp_path: Path) -> None:
    _fit(Problem(), tmp_path, every=None)
    with pytest.raises(ArtifactError, match=r"holds no states of the training; set refine.train"):
        kept_snapshots(tmp_path / "checkpoint.safetensors")
    again, finished = Problem(), Problem()
    _fit(again, tmp_path)
    assert again.seen == list(range(12))
    _fit(finished, tmp_path)
    assert finished.seen == []
    rarer = Problem()
    _fit(rarer, tmp_path, every=10)  # 0, 10 and 12 are there; 5 is not asked for
    assert rarer.seen == []
    assert list(_snapshots(tmp_path)) == [0, 10, 12]


def test_states_of_another_training_are_not_taken(tmp_path: Path) -> None:
    _fit(Problem(), tmp_path)
    other = Problem()
    with pytest.raises(KeyboardInterrupt):
        _fit(Problem(at_1=interrupt), tmp_path, key="other")
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["0000000.safetensors"]
    _fit(other, tmp_path, key="other")
    assert other.seen == list(range(12))
    changed = MADE.model_copy(update={"seed": 9})
    save_checkpoint(tmp_path / "checkpoint.safetensors", other.module.state_dict(), changed)
    with pytest.raises(ArtifactError, match=r"0000000.safetensors: is of another training than"):
        kept_snapshots(tmp_path / "checkpoint.safetensors")
