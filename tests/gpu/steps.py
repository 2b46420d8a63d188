"""What each step of a refiner's training asks of the GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

from tests.gpu.pretend import PretendGpu
from wsss.refine.training.trainer import Trainer


class Step(NamedTuple):
    """The counts of `PretendGpu` in one step."""

    waits: dict[str, int]
    launches: dict[str, int]
    uploads: dict[str, int]


@contextmanager
def counted_steps(gpu: PretendGpu) -> Iterator[list[Step]]:
    """The steps of the trainings inside the block; preparations do not count."""
    steps: list[Step] = []
    step = Trainer._step

    def counted(self: Any, *arguments: Any) -> Any:
        gpu.clear()
        row = step(self, *arguments)
        counters = (gpu.waits, gpu.launches, gpu.uploads)
        steps.append(Step(*({k: n for k, n in c.items() if n} for c in counters)))
        return row

    with mock.patch.object(Trainer, "_step", counted):
        yield steps
