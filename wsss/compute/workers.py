"""How many workers of a job suit the machine: ``compute.workers: auto``."""

from __future__ import annotations

import functools
import os

from wsss.compute.cuda import torch_has_cuda
from wsss.compute.gpus import visible_gpus

_MOST = 8  # beyond it decoding and CRFs wait for the disk and the stage's own process


@functools.cache
def auto_workers(device: str) -> int:
    """Workers per job, or per process of a training that has several.

    In a Slurm job these are its CPUs per task, shared by its processes. Elsewhere they are the
    cores, or where jobs compute on GPUs the cores per GPU less one, which feeds the GPU; at most 8.
    The answer is the first one of a process, which sees fewer GPUs once it holds one.

    Returns:
        At least 1.
    """
    allocated = os.environ.get("SLURM_CPUS_PER_TASK", "") if "SLURM_JOB_ID" in os.environ else ""
    if allocated.isdecimal():
        return max(1, int(allocated) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    gpus = len(visible_gpus()) if device != "cpu" and torch_has_cuda() else 0
    workers = cores() // gpus - 1 if gpus else cores()
    return max(1, min(workers, _MOST))


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
