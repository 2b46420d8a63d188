"""The one training loop of the refiners: schedule, loss curve, clean stop, exact resume.

Nothing a step does may depend on what happened before it, except the parameters and the optimiser's
state: batches are a function of the step's number, and torch's generator is seeded anew at every
step. A run that was killed therefore ends, on a CPU, in the same weights as one that was not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from wsss.artifacts.atomic import atomic_path
from wsss.artifacts.checkpoint import load_tensors, save_tensors
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.progress import track
from wsss.artifacts.training import check_loss
from wsss.compute import distributed, seeding
from wsss.compute.device_memory import with_less_memory, without_repetition
from wsss.config.refine import TrainingConfig
from wsss.errors import WsssError
from wsss.refine.training.efficiency import Efficiency, StepTimer, device_name, peak_memory
from wsss.refine.training.schedule import learning_rate
from wsss.refine.training.snapshots import Snapshots
from wsss.refine.training.stopping import stop_requested

_log = logging.getLogger(__name__)
_REMEDY = "lower refine.train.batch or refine.train.crop, or set compute.device to cpu"
_STATE, _BEFORE = "state.safetensors", "state-before.safetensors"

Batch = TypeVar("Batch")
Curve = Mapping[str, Sequence[float]]
"""What was measured at every training step: ``loss``, its parts, ``lr``."""


class TrainingStoppedError(WsssError, RuntimeError):
    """The training was asked to stop, and its state is saved for the next run."""


@dataclass(frozen=True)
class Group:
    """Parameters with a separate learning rate."""

    parameters: Sequence[nn.Parameter]
    relative: float
    """Times ``refine.train.lr``; see `learning_rate` for 0."""


@dataclass
class _Progress:
    """Steps that are done, and what was measured at each."""

    steps: int
    rows: list[list[float]]


class Trainer(Generic[Batch]):
    """Train a module with AdamW.

    Args:
        module: what is trained, and nothing else: all of its state is saved and restored.
        settings: steps, learning rate, schedule.
        work: folder of the resumable state.
        key: digest of all that decides the result; the state of another training is not resumed.
        description: shown next to the progress.
        groups: the parameters to train; None for all of the module at the same rate.
        snapshots: keeps the module's state at some steps; None keeps none.
        save_memory: makes a step take less, and says whether it does; called where a GPU's memory
            does not do.
        after_step: called with the step's number (0-based) once the optimiser has made it.
    """

    def __init__(
        self,
        module: nn.Module,
        settings: TrainingConfig,
        *,
        seed: int,
        work: Path,
        key: str,
        description: str,
        groups: Sequence[Group] | None = None,
        snapshots: Snapshots | None = None,
        save_memory: Callable[[], bool] = lambda: False,
        after_step: Callable[[int], None] = lambda step: None,
    ) -> None:
        distributed.share_batch_norm(module)
        self._module, self._settings, self._seed = module, settings, seed
        self._path, self._key, self._description = work / _STATE, key, description
        self._snapshots, self._save_memory = snapshots, save_memory
        self._after_step = after_step
        self._groups = groups or [Group(list(module.parameters()), 1.0)]
        on_gpu = all(p.is_cuda for group in self._groups for p in group.parameters)
        self._optimizer = torch.optim.AdamW(
            [{"params": list(group.parameters)} for group in self._groups],
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            fused=on_gpu or None,  # one launch for all parameters
        )
        self._columns: list[str] = []
        self._timer = StepTimer()
        self._earlier_peak = 0

    def fit(
        self,
        batches: Callable[[int], Iterator[Batch]],
        losses: Callable[[int, Batch], Mapping[str, Tensor]],
    ) -> Curve:
        """Train to the end, or from where an earlier run was interrupted.

        Args:
            batches: the batches from a step on, endless or up to the last step.
            losses: from the step (0-based) and its batch to ``loss`` and its parts.

        Returns:
            ``lr``, ``loss`` and its parts at every step.

        Raises:
            TrainingStoppedError: SIGTERM or SIGINT came; the state was saved.
            FloatingPointError: the loss is not finite.
        """
        settings = self._settings
        if self._snapshots:
            self._snapshots.remove_others()
        done = self._resume()
        remaining = range(done.steps, settings.iterations)
        if done.steps:
            _log.info("going on after step %d of %d", done.steps, settings.iterations)
        if not remaining:
            return self._curve(done)
        if not done.steps:
            self._keep(done)
        self._module.train()
        with stop_requested() as stop:
            stream = batches(done.steps)
            for step in self._shown(remaining, done.rows):
                done.rows.append(self._step(step, losses, next(stream)))
                done.steps = step + 1
                self._timer.step()
                self._keep(done)
                if distributed.any_rank(stop.is_set()) and done.steps < settings.iterations:
                    self._save(done)
                    raise TrainingStoppedError(
                        f"stopped after step {done.steps} of {settings.iterations}; the state is "
                        f"in {self._path.parent}, the same command goes on from there"
                    )
                if done.steps % settings.checkpoint_every == 0:
                    self._save(done)
        self._save(done)
        return self._curve(done)

    def _shown(self, steps: range, rows: list[list[float]]) -> Iterable[int]:
        if distributed.rank():
            return steps

        def loss() -> str:
            return f"loss {rows[-1][self._columns.index('loss')]:.3f}"

        return track(steps, total=len(steps), description=self._description, note=loss)

    def efficiency(self, method: str, trained: int, parameters: int) -> Efficiency:
        """What the training cost so far.

        Args:
            trained: parameters that are trained on top of CLIP.
            parameters: of all that a forward pass uses.
        """
        rate = self._timer.rate
        device = next(self._module.parameters()).device
        return Efficiency(
            method=method,
            trained_parameters=trained,
            parameters=parameters,
            images_per_second=None if rate is None else self._settings.batch * rate,
            peak_memory=self._peak_memory(),
            device=device_name(device),
        )

    def _peak_memory(self) -> int:
        """Of this process and those that trained before it."""
        return max(self._earlier_peak, peak_memory(next(self._module.parameters()).device))

    def _step(
        self, step: int, losses: Callable[[int, Batch], Mapping[str, Tensor]], batch: Batch
    ) -> list[float]:
        for group, settings in zip(self._optimizer.param_groups, self._groups, strict=True):
            group["lr"] = learning_rate(step, self._settings, settings.relative)
        parts = with_less_memory(
            lambda: self._gradients(step, losses, batch),
            self._can_save_memory,
            _REMEDY,
            self._module,
        )
        parameters = (p for group in self._optimizer.param_groups for p in group["params"])
        with without_repetition(_REMEDY):
            distributed.average([p.grad for p in parameters if p.grad is not None])
            self._optimizer.step()
            with torch.no_grad():
                self._after_step(step)
        measured = distributed.means(parts)  # a GPU is waited for once the whole step is on its way
        steps = self._settings.iterations
        check_loss(float(measured["loss"]), step + 1, steps, "refine.train")
        values = {"lr": learning_rate(step, self._settings)} | {
            name: float(part) for name, part in measured.items()
        }
        self._columns = list(values)
        return list(values.values())

    def _gradients(
        self, step: int, losses: Callable[[int, Batch], Mapping[str, Tensor]], batch: Batch
    ) -> Mapping[str, Tensor]:
        """Run a step forward and backward."""
        drawn = (1 + step, *distributed.rank_key())
        torch.manual_seed(seeding.seed_number(self._seed, seeding.NETWORK, *drawn))
        parts = losses(step, batch)
        if not isinstance(parts, Mapping) or "loss" not in parts:
            returned = sorted(parts) if isinstance(parts, Mapping) else type(parts).__name__
            raise ValueError(
                f"the method's loss returned {returned}; expected a mapping with the entry "
                "'loss', which is minimised, and perhaps its parts"
            )
        self._optimizer.zero_grad(set_to_none=True)
        parts["loss"].backward()
        return parts

    def _can_save_memory(self) -> bool:
        """With several processes the others wait within the step that failed."""
        return distributed.world_size() == 1 and self._save_memory()

    def _curve(self, done: _Progress) -> Curve:
        columns = list(zip(*done.rows, strict=True))
        return {name: list(column) for name, column in zip(self._columns, columns, strict=True)}

    def _keep(self, done: _Progress) -> None:
        if self._snapshots:
            self._snapshots.keep(done.steps, self._module.state_dict())

    def _save(self, done: _Progress) -> None:
        if distributed.rank():
            return
        state = {f"module.{name}": tensor for name, tensor in self._module.state_dict().items()}
        for index, values in self._optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
        state["curve"] = torch.tensor(np.array(done.rows, np.float64))
        facts = {"key": self._key, "step": str(done.steps), "columns": ",".join(self._columns)}
        facts |= {"peak_memory": str(self._peak_memory())}
        if (rate := self._timer.rate) is not None:
            facts["steps_per_second"] = repr(rate)
        with atomic_path(self._path) as temporary:
            save_tensors(temporary, state, facts)
            if self._path.exists():  # in case the disk damages the newest
                self._path.replace(self._path.with_name(_BEFORE))

    def _resume(self) -> _Progress:
        """Resume from the newest intact state in the work folder, if it is of this training."""
        for path in (self._path, self._path.with_name(_BEFORE)):
            if not path.exists():
                continue
            try:
                state, facts = load_tensors(path, "it is left alone")
            except ArtifactError as error:
                _log.warning("%s; trying an older state, or starting anew", error)
                continue
            if facts.get("key") != self._key:
                _log.info("%s: is of another configuration or other CAMs; starting anew", path)
                continue
            if self._snapshots and not self._snapshots.has_all(int(facts["step"])):
                _log.info("%s: states of earlier steps are to be kept; starting anew", path)
                continue
            return self._restore(state, facts)
        return _Progress(0, [])

    def _restore(self, state: Mapping[str, Tensor], facts: Mapping[str, str]) -> _Progress:
        self._module.load_state_dict(_below("module.", state))
        by_parameter: dict[int, dict[str, Tensor]] = {}
        for name, value in _below("optimizer.", state).items():
            index, _, part = name.partition(".")
            by_parameter.setdefault(int(index), {})[part] = value
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": by_parameter, "param_groups": groups})
        self._columns = facts["columns"].split(",")
        self._earlier_peak = int(facts.get("peak_memory", "0"))
        if "steps_per_second" in facts:
            self._timer = StepTimer(float(facts["steps_per_second"]))
        return _Progress(int(facts["step"]), state["curve"].tolist())


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): value for n, value in state.items() if n.startswith(prefix)}
