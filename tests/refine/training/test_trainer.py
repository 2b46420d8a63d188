"""The training loop: schedule, curve, exact resume after an error, a signal and a kill."""

import copy
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from wsss.compute.device_memory import DeviceMemoryError
from wsss.config.refine import TrainingConfig
from wsss.refine.training.efficiency import Efficiency
from wsss.refine.training.schedule import learning_rate
from wsss.refine.training.trainer import Trainer, TrainingStoppedError

SETTINGS = TrainingConfig(iterations=12, warmup=3, lr=0.05, checkpoint_every=4)


class Problem:
    """Regression on batches that are a function of their step; events around a step's loss."""

    def __init__(self, **events: Callable[[], None]) -> None:
        torch.manual_seed(5)
        self.module = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        self.events, self.seen = events, list[int]()

    def batches(self, start: int) -> Iterator[Tensor]:
        for step in range(start, 10**6):
            yield torch.randn(4, 6, generator=torch.Generator().manual_seed(step))

    def losses(self, step: int, batch: Tensor) -> Mapping[str, Tensor]:
        self.events.get(f"at_{step}", lambda: None)()
        self.seen.append(step)
        fit = (self.module(batch) - batch.sum(1, keepdim=True)).square().mean()
        self.events.get(f"after_{step}", lambda: None)()
        return {"loss": fit, "fit": fit}

    def fit(self, work: Path, key: str = "t", **changes: object) -> Mapping[str, Sequence[float]]:
        settings = SETTINGS.model_copy(update=changes)
        trainer = Trainer(self.module, settings, seed=3, work=work, key=key, description="test")
        return trainer.fit(self.batches, self.losses)


def interrupt() -> None:
    raise KeyboardInterrupt


@dataclass
class Whole:
    """A training that nothing interrupted."""

    folder: Path
    problem: Problem
    curve: Mapping[str, Sequence[float]]

    def assert_same_end(self, work: Path, first: int) -> None:
        """The training in `work` goes on at step `first` and ends in the same weights."""
        again = Problem()
        assert again.fit(work) == self.curve
        assert again.seen == list(range(first, 12))
        weights = again.module.state_dict()
        assert weights.keys() == self.problem.module.state_dict().keys()
        for name, value in self.problem.module.state_dict().items():
            assert torch.equal(weights[name], value), name


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder, problem = tmp_path_factory.mktemp("whole"), Problem()
    return Whole(folder, problem, problem.fit(folder))


def test_schedule() -> None:
    settings = TrainingConfig(lr=1.0, iterations=100, warmup=10, power=1.0)
    assert learning_rate(0, settings) == pytest.approx(1e-6)
    assert learning_rate(5, settings) == pytest.approx(0.5, abs=1e-5)
    assert learning_rate(10, settings) == pytest.approx(0.9)
    assert learning_rate(99, settings) == pytest.approx(0.01)


def test_it_learns_and_records_every_step(tmp_path: Path) -> None:
    problem = Problem()
    curve = problem.fit(tmp_path, iterations=200)
    assert list(curve) == ["lr", "loss", "fit"]
    assert problem.seen == list(range(200))
    assert len(curve["loss"]) == 200
    assert sum(curve["loss"][-20:]) < 0.6 * sum(curve["loss"][:20])
    assert curve["lr"][2] == pytest.approx(0.05 * 2 / 3, abs=1e-5)


@pytest.mark.parametrize("at", [2, 4, 7, 11])
def test_a_broken_run_ends_in_the_same_weights(whole: Whole, tmp_path: Path, at: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        Problem(**{f"at_{at}": interrupt}).fit(tmp_path)
    whole.assert_same_end(tmp_path, at // 4 * 4)  # nothing that was saved is done again


def test_a_signal_stops_it_after_the_step(whole: Whole, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingStoppedError, match="stopped after step 6 of 12; the state is in"):
        Problem(at_5=lambda: os.kill(os.getpid(), signal.SIGTERM)).fit(tmp_path)
    assert signal.getsignal(signal.SIGTERM) is before
    whole.assert_same_end(tmp_path, 6)


_KILLED = """
import sys, time
from pathlib import Path
from tests.refine.training.test_trainer import Problem
def wait():
    print("at 9", flush=True)
    time.sleep(60)
Problem(at_9=wait).fit(Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_killed_run_ends_in_the_same_weights(whole: Whole, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _KILLED, str(tmp_path)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[3]
    )
    assert process.stdout.readline() == b"at 9\n"
    process.kill()
    process.wait()
    whole.assert_same_end(tmp_path, 8)


def test_a_finished_run_is_not_repeated(whole: Whole) -> None:
    whole.assert_same_end(whole.folder, 12)


def test_the_state_of_another_training_or_a_damaged_one_is_left(tmp_path: Path) -> None:
    Problem().fit(tmp_path)
    for _ in range(2):
        other = Problem()
        other.fit(tmp_path, key="other")
        assert other.seen[0] == 0
        for state in tmp_path.glob("*.safetensors"):
            state.write_bytes(state.read_bytes()[:100])


def test_of_a_damaged_state_the_one_before_is_taken(
    whole: Whole, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(KeyboardInterrupt):
        Problem(at_11=interrupt).fit(tmp_path)
    newest = tmp_path / "state.safetensors"
    damaged = bytearray(newest.read_bytes())
    damaged[-3] ^= 1
    newest.write_bytes(damaged)
    whole.assert_same_end(tmp_path, 4)  # 8 was damaged
    assert "state.safetensors: is damaged" in caplog.text


def test_a_loss_that_is_not_finite_stops_it(tmp_path: Path) -> None:
    problem = Problem()
    problem.events["at_2"] = lambda: problem.module[0].weight.data.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match=r"nan at step 3 of 12; lower refine.train.lr"):
        problem.fit(tmp_path)


def test_a_loss_without_its_entry_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem()
    monkeypatch.setattr(problem, "losses", lambda step, batch: {"fit": batch.sum()})
    with pytest.raises(ValueError, match=r"\['fit'\]; expected a mapping with the entry 'loss'"):
        problem.fit(tmp_path)
    monkeypatch.setattr(problem, "losses", lambda step, batch: batch.sum())
    with pytest.raises(ValueError, match="returned Tensor; expected a mapping with"):
        problem.fit(tmp_path)


def test_time_left_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Problem().fit(tmp_path)
    shown = capsys.readouterr().err
    assert "test: 12/12" in shown
    assert "s left" in shown


def test_a_finished_run_says_what_it_cost(tmp_path: Path) -> None:
    """It is taken up when its result was lost, or when it was killed before it wrote it."""

    def cost(problem: Problem) -> Efficiency:
        trainer = Trainer(
            problem.module, SETTINGS, seed=3, work=tmp_path, key="t", description="test"
        )
        trainer.fit(problem.batches, problem.losses)
        return trainer.efficiency("m", 1, 1)

    first, again = cost(Problem()), cost(Problem())
    assert first.images_per_second is not None
    assert again.images_per_second == first.images_per_second
    assert again.peak_memory >= first.peak_memory


def _out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …")


def _once(action: Callable[[], None]) -> Callable[[], None]:
    actions = [action]
    return lambda: actions.pop()() if actions else None


def test_a_step_that_does_not_fit_is_repeated_with_less_memory(
    whole: Whole, tmp_path: Path
) -> None:
    """The weights are those of a training that fitted, dropout included."""
    problem, savings = Problem(at_5=_once(_out_of_memory)), [False, True]
    trainer = Trainer(
        problem.module,
        SETTINGS,
        seed=3,
        work=tmp_path,
        key="t",
        description="test",
        save_memory=savings.pop,
    )
    assert trainer.fit(problem.batches, problem.losses) == whole.curve
    assert savings == [False]
    for name, value in whole.problem.module.state_dict().items():
        assert torch.equal(problem.module.state_dict()[name], value), name


def test_a_repeated_step_counts_once_in_running_statistics(tmp_path: Path) -> None:
    """A training that met its limit ends as one that saved memory from the start."""
    ends = []
    for events in ({}, {"after_0": _once(_out_of_memory), "after_5": _once(_out_of_memory)}):
        problem, work = Problem(**events), tmp_path / str(len(events))
        problem.module.insert(1, nn.BatchNorm1d(8))
        trainer = Trainer(
            problem.module,
            SETTINGS,
            seed=3,
            work=work,
            key="t",
            description="test",
            save_memory=lambda: True,
        )
        trainer.fit(problem.batches, problem.losses)
        ends.append(problem.module.state_dict())
    assert ends[1]["1.num_batches_tracked"] == 12
    for name, value in ends[0].items():
        assert torch.equal(ends[1][name], value), name


class Taught(nn.Sequential):
    """A network with a mean teacher, frozen parameters that are part of its state."""

    def __init__(self, student: nn.Sequential) -> None:
        super().__init__(student)
        self.teacher = copy.deepcopy(student).requires_grad_(False)
        self.steps: list[int] = []

    def forward(self, batch: Tensor) -> Tensor:
        return self[0](batch)

    def after_step(self, step: int) -> None:
        self.steps.append(step)
        for mean, weight in zip(self.teacher.parameters(), self[0].parameters(), strict=True):
            mean.lerp_(weight, 0.1)


def test_a_teacher_moves_once_per_step_and_is_resumed(tmp_path: Path) -> None:
    ends = []
    for events in ({}, {"after_5": _once(_out_of_memory), "at_7": _once(interrupt)}):
        problem, work = Problem(**events), tmp_path / str(len(events))
        taught = problem.module = Taught(problem.module)
        for stops in [True, False] if events else [False]:
            trainer = Trainer(
                taught,
                SETTINGS,
                seed=3,
                work=work,
                key="t",
                description="test",
                save_memory=lambda: True,
                after_step=taught.after_step,
            )
            with pytest.raises(KeyboardInterrupt) if stops else nullcontext():
                trainer.fit(problem.batches, problem.losses)
        ends.append(taught.state_dict())
    assert taught.steps == [*range(7), *range(4, 12)]
    assert not torch.equal(ends[0]["teacher.0.weight"], ends[0]["0.0.weight"])
    for name, value in ends[0].items():
        assert torch.equal(ends[1][name], value), name


def test_a_step_of_the_optimiser_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be half done."""
    steps: list[None] = []

    def step(optimiser: torch.optim.Optimizer) -> None:
        steps.append(None)
        if len(steps) == 3:
            _out_of_memory()

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(DeviceMemoryError, match=r"2\.00 GiB; lower refine\.train\.batch"):
        Problem().fit(tmp_path)
    assert len(steps) == 3


def test_a_step_that_fits_in_no_way_names_the_keys(tmp_path: Path) -> None:
    expected = r"Tried to allocate 2\.00 GiB; lower refine\.train\.batch or refine\.train\.crop"
    with pytest.raises(DeviceMemoryError, match=expected):
        Problem(at_5=_out_of_memory).fit(tmp_path)
