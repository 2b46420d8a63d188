"""States of a training at several steps, kept as checkpoints: what did it learn when?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from wsss.artifacts.checkpoint import save_checkpoint
from wsss.artifacts.checkpoint_header import checkpoint_facts, checkpoint_provenance
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.provenance import Provenance
from wsss.compute import distributed

FOLDER = "snapshots"
"""Next to the checkpoint."""
STEP = "step"
"""The fact of a checkpoint that says after how many steps it was kept."""


@dataclass(frozen=True)
class Snapshots:
    """Keeps the state of every so many steps, the first and the last among them."""

    folder: Path
    every: int
    """Steps from one to the next."""
    last: int
    """Steps of the training."""
    provenance: Provenance
    """Of the training."""
    key: str
    """Digest of all that decides its result."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What is needed to use a checkpoint."""

    def keep(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Write the state after some steps, if it is one to keep; the first process alone does."""
        if not distributed.rank() and step in self._steps(self.last):
            facts = {**self.facts, STEP: step, "key": self.key}
            save_checkpoint(self._path(step), tensors, self.provenance, facts)

    def has_all(self, done: int) -> bool:
        """Whether the states up to some steps are there, all of this training."""
        return all(self._is_kept(step) for step in self._steps(done))

    def remove_others(self) -> None:
        """Delete states that another training kept, or that are none to keep any more."""
        if not distributed.rank():
            paths = {self._path(step) for step in self._steps(self.last) if self._is_kept(step)}
            for path in self.folder.glob("*.safetensors"):
                if path not in paths:
                    path.unlink()
        distributed.barrier()

    def _steps(self, done: int) -> set[int]:
        steps = set(range(0, done + 1, self.every))
        return steps | {self.last} if done == self.last else steps

    def _path(self, step: int) -> Path:
        return self.folder / f"{step:07d}.safetensors"

    def _is_kept(self, step: int) -> bool:
        try:
            return checkpoint_facts(self._path(step)).get("key") == self.key
        except (ArtifactError, OSError):
            return False


def kept_snapshots(checkpoint: Path) -> dict[int, Path]:
    """The states that the training of a checkpoint kept, by step, in ascending order.

    Raises:
        ArtifactError: there is none, or one is damaged or of another training.
    """
    folder = checkpoint.parent / FOLDER
    paths = sorted(folder.glob("*.safetensors"))
    remedy = (
        "set refine.train.snapshots_every, e.g. to a tenth of refine.train.iterations, and train "
        "again (--forcerun refine_train)"
    )
    if not paths:
        raise ArtifactError(f"{folder}: holds no states of the training; {remedy}")
    trained = checkpoint_provenance(checkpoint).model_copy(update={"outputs": {}})
    for path in paths:
        if checkpoint_provenance(path) != trained:
            raise ArtifactError(f"{path}: is of another training than {checkpoint}; {remedy}")
    return {int(checkpoint_facts(path)[STEP]): path for path in paths}
