"""What a training costs: parameters, speed, memory."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from wsss.artifacts.atomic import write_text
from wsss.artifacts.checksum import json_with_checksum

if TYPE_CHECKING:
    import torch  # 3 s at import: reading what was measured does without


class Efficiency(BaseModel):
    """What a training cost, in the units of the papers' tables."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    trained_parameters: int
    """On top of CLIP."""
    parameters: int
    """Of all that a forward pass uses."""
    images_per_second: float | None
    """Training crops, from the steps of the last process that took more than its first ones; None:
    none did."""
    peak_memory: int
    """Bytes: allocated on the GPU, or of the process on a CPU."""
    device: str
    training: str = ""
    """Key of the training, as in the provenance of its checkpoint."""


def write_efficiency(path: Path, efficiency: Efficiency, training: str) -> None:
    """Atomically write what a training cost as JSON, with a checksum.

    Args:
        training: digest of the provenance of the training.
    """
    cost = efficiency.model_copy(update={"training": training}).model_dump(mode="json")
    write_text(path, json.dumps(json_with_checksum(cost)) + "\n")


class StepTimer:
    """Steps a second, without the first ones, which warm up.

    Args:
        earlier: what another process measured, for a training that goes on with few steps or none.
    """

    _WARM = 3

    def __init__(self, earlier: float | None = None) -> None:
        self._earlier = earlier
        self._steps, self._start, self._last = 0, 0.0, 0.0

    def step(self) -> None:
        """A step is done."""
        self._steps += 1
        self._last = time.monotonic()
        if self._steps == self._WARM:
            self._start = self._last

    @property
    def rate(self) -> float | None:
        """None: too few steps to say."""
        if self._steps <= self._WARM:
            return self._earlier
        return (self._steps - self._WARM) / max(self._last - self._start, 1e-9)


def peak_memory(device: torch.device) -> int:
    """Bytes: allocated on a GPU, of the process on a CPU."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # bytes there, kilobytes elsewhere


def device_name(device: torch.device) -> str:
    """The vendor's name of a GPU; of a CPU the number of threads."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"
