"""The training loop: schedule, curve, exact resume after an error, a signal and a kill."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from wsss.config.refine import TrainingConfig
from wsss.refine.training.trainer import Trainer, TrainingStoppedError, learning_rate

SETTINGS = TrainingConfig(iterations=12, warmup=3, lr=0.05, checkpoint_every=4)


def network() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 1))


class Problem:
    """Regression on batches that are a function of their step."""

    def __init__(self, module: nn.Module, fail_at: int | None = None) -> None:
        self.module, self.fail_at, self.seen = module, fail_at, list[int]()

    def batches(self, start: int) -> Iterator[Tensor]:
        for step in range(start, 10**6):
            yield torch.randn(4, 6, generator=torch.Generator().manual_seed(step))

    def losses(self, step: int, batch: Tensor) -> Mapping[str, Tensor]:
        if step == self.fail_at:
            raise KeyboardInterrupt
        self.seen.append(step)
        fit = (self.module(batch) - batch.sum(1, keepdim=True)).square().mean()
        return {"loss": fit, "fit": fit}


def trainer(module: nn.Module, work: Path, key: str = "t", **changes: object) -> Trainer[Tensor]:
    settings = SETTINGS.model_copy(update=changes)
    return Trainer(module, settings, seed=3, work=work, key=key, description="test")


def trained(work: Path) -> tuple[dict[str, Tensor], Mapping[str, object]]:
    module = network()
    problem = Problem(module)
    curve = trainer(module, work).fit(problem.batches, problem.losses)
    return module.state_dict(), curve


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        assert torch.equal(found[name], expected[name]), name


def test_schedule() -> None:
    settings = TrainingConfig(lr=1.0, iterations=100, warmup=10, power=1.0)
    assert learning_rate(0, settings) == pytest.approx(1e-6)
    assert learning_rate(5, settings) == pytest.approx(0.5, abs=1e-5)
    assert learning_rate(10, settings) == pytest.approx(0.9)
    assert learning_rate(99, settings) == pytest.approx(0.01)


def test_it_learns_and_records_every_step(tmp_path: Path) -> None:
    module = network()
    problem = Problem(module)
    curve = trainer(module, tmp_path, iterations=200).fit(problem.batches, problem.losses)
    assert list(curve) == ["lr", "loss", "fit"]
    assert problem.seen == list(range(200))
    assert len(curve["loss"]) == 200
    assert sum(curve["loss"][-20:]) < 0.6 * sum(curve["loss"][:20])
    assert curve["lr"][2] == pytest.approx(0.05 * 2 / 3, abs=1e-5)


@pytest.mark.parametrize("at", [2, 4, 7, 11])
def test_a_broken_run_ends_in_the_same_weights(tmp_path: Path, at: int) -> None:
    expected, curve = trained(tmp_path / "whole")
    module = network()
    problem = Problem(module, fail_at=at)
    with pytest.raises(KeyboardInterrupt):
        trainer(module, tmp_path / "broken").fit(problem.batches, problem.losses)
    again = network()
    problem = Problem(again)
    found = trainer(again, tmp_path / "broken").fit(problem.batches, problem.losses)
    assert problem.seen[0] == at // 4 * 4  # nothing that was saved is done again
    assert_same(again.state_dict(), expected)
    assert found == curve


def test_a_signal_stops_it_after_the_step(tmp_path: Path) -> None:
    expected, curve = trained(tmp_path / "whole")
    module = network()
    problem = Problem(module)

    def losses(step: int, batch: Tensor) -> Mapping[str, Tensor]:
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return problem.losses(step, batch)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingStoppedError, match="stopped after step 6 of 12; the state is in"):
        trainer(module, tmp_path / "stopped").fit(problem.batches, losses)
    assert signal.getsignal(signal.SIGTERM) is before
    again = network()
    problem = Problem(again)
    found = trainer(again, tmp_path / "stopped").fit(problem.batches, problem.losses)
    assert problem.seen[0] == 6
    assert_same(again.state_dict(), expected)
    assert found == curve


_KILLED = """
import sys, time
from pathlib import Path
from tests.refine.training.test_trainer import Problem, network, trainer
module = network()
problem = Problem(module)
def losses(step, batch):
    if step == 9:
        print("at 9", flush=True)
        time.sleep(60)
    return problem.losses(step, batch)
trainer(module, Path(sys.argv[1])).fit(problem.batches, losses)
"""


def test_a_killed_run_ends_in_the_same_weights(tmp_path: Path) -> None:
    expected, curve = trained(tmp_path / "whole")
    work = tmp_path / "killed"
    command = [sys.executable, "-c", _KILLED, str(work)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[3]
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"at 9\n"
    process.kill()
    process.wait()
    again = network()
    problem = Problem(again)
    found = trainer(again, work).fit(problem.batches, problem.losses)
    assert problem.seen == [8, 9, 10, 11]
    assert_same(again.state_dict(), expected)
    assert found == curve


def test_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    expected, curve = trained(tmp_path)
    module = network()
    problem = Problem(module)
    assert trainer(module, tmp_path).fit(problem.batches, problem.losses) == curve
    assert problem.seen == []
    assert_same(module.state_dict(), expected)


def test_the_state_of_another_training_or_a_damaged_one_is_left(tmp_path: Path) -> None:
    trained(tmp_path)
    module = network()
    problem = Problem(module)
    trainer(module, tmp_path, key="other").fit(problem.batches, problem.losses)
    assert problem.seen[0] == 0
    for state in tmp_path.glob("*.safetensors"):
        state.write_bytes(state.read_bytes()[:100])
    problem = Problem(module)
    trainer(module, tmp_path, key="other").fit(problem.batches, problem.losses)
    assert problem.seen[0] == 0


def test_of_a_damaged_state_the_one_before_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected, curve = trained(tmp_path / "whole")
    module = network()
    problem = Problem(module, fail_at=11)
    with pytest.raises(KeyboardInterrupt):
        trainer(module, tmp_path).fit(problem.batches, problem.losses)
    newest = tmp_path / "state.safetensors"
    damaged = bytearray(newest.read_bytes())
    damaged[-3] ^= 1
    newest.write_bytes(damaged)
    again = network()
    problem = Problem(again)
    found = trainer(again, tmp_path).fit(problem.batches, problem.losses)
    assert problem.seen[0] == 4  # 8 was damaged
    assert "state.safetensors: is damaged" in caplog.text
    assert_same(again.state_dict(), expected)
    assert found == curve


def test_a_loss_that_is_not_finite_stops_it(tmp_path: Path) -> None:
    module = network()
    problem = Problem(module)

    def losses(step: int, batch: Tensor) -> Mapping[str, Tensor]:
        found = problem.losses(step, batch)["loss"]
        return {"loss": found * (float("nan") if step == 2 else 1.0)}

    with pytest.raises(FloatingPointError, match=r"nan at step 3 of 12; lower refine.train.lr"):
        trainer(module, tmp_path).fit(problem.batches, losses)


def test_time_left_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(tmp_path)
    shown = capsys.readouterr().err
    assert "test: 12/12" in shown
    assert "s left" in shown
