"""How many GPUs the jobs of a run will have, where that can be told before they start."""

from __future__ import annotations

import functools
import os

from wsss.compute.cuda import torch_has_cuda
from wsss.compute.gpus import visible_gpus

PLANNED_GPUS = "WSSS_PLANNED_GPUS"
"""Environment: GPUs of the jobs, where they run on other machines than the engine; 0 for none."""


def planned_gpus(device: str) -> int:
    """GPUs on which jobs may compute at once: as ``WSSS_PLANNED_GPUS`` says, else those seen here.

    The GPUs seen here are looked up once per process.

    Returns:
        0 where jobs compute on the CPU.
    """
    if device == "cpu":
        return 0
    planned = os.environ.get(PLANNED_GPUS, "")
    return int(planned) if planned.isdecimal() else _usable_gpus(device)


@functools.cache
def _usable_gpus(device: str) -> int:
    if not torch_has_cuda():
        return 0
    gpus = len(visible_gpus())
    return min(1, gpus) if ":" in device else gpus
