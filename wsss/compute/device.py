"""From the configured device name to torch's device."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import runpy
from pathlib import Path
from typing import TYPE_CHECKING

from wsss.compute.gpus import HELD, VISIBLE, claim_gpus, visible_gpus

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU; ``cpu``, ``cuda``, ``cuda:1`` are torch's.

    A process holds its GPU until it ends (`wsss.compute.gpus`). ``auto`` and ``cuda`` take a free
    one. In a Slurm job, which may share its node, ``auto`` takes only a GPU that Slurm assigned. In
    a training of several processes each takes the GPU of its rank.

    Raises:
        ValueError: there is no such device, or several processes would share it.
    """
    import torch  # here, so that reading a configuration does not cost torch's start-up

    kind, _, gpu_index = name.partition(":")
    if name == "cpu" or (name == "auto" and not torch_has_cuda()):
        return torch.device("cpu")
    if kind not in ("auto", "cuda"):
        raise ValueError(f"device {name!r}: expected auto, cpu, cuda or cuda:1 …")
    require_cuda(name)
    if kind == "auto" and "SLURM_JOB_ID" in os.environ and VISIBLE not in os.environ:
        if visible_gpus():
            _log.warning(
                "this node has GPUs, but Slurm lent none to this job, so it computes on the CPU; "
                "ask for one (resource gpu), or set compute.device to cuda to take what is there"
            )
        return torch.device("cpu")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if gpu_index:
            raise ValueError(
                f"compute.device is {name}, but several processes were launched, which need a GPU "
                "each; set it to cuda, or launch one process"
            )
        gpu_index = os.environ["LOCAL_RANK"]
    if HELD not in os.environ and (gpus := visible_gpus()):
        if gpu_index:
            if int(gpu_index) >= len(gpus):
                raise ValueError(
                    f"GPU {gpu_index} was asked for (0-based), but {len(gpus)} can be seen here"
                )
            claim_gpus([gpus[int(gpu_index)]])
        else:
            os.environ[VISIBLE] = claim_gpus(gpus)[0].name  # CUDA has not looked at it yet
        os.environ[HELD] = "1"
    if not torch.cuda.is_available():
        if kind == "auto":
            return torch.device("cpu")
        raise ValueError(
            f"no GPU: compute.device is {name}, but this machine shows none to torch; set it to "
            "cpu or auto, or run where there is one"
        )
    device = torch.device(f"cuda:{gpu_index}" if gpu_index else "cuda")
    if gpu_index:
        torch.cuda.set_device(device)  # else torch keeps a context on the first GPU as well
    return device


def require_cuda(name: str) -> None:
    """Refuse a GPU where torch was built for the CPU alone; looks for no GPU.

    Args:
        name: the configured device.

    Raises:
        ValueError: it says what to set.
    """
    if name.startswith("cuda") and not torch_has_cuda():
        raise ValueError(
            f"no GPU: this torch has no CUDA; set compute.device to cpu or auto (it is {name}), or "
            "install a torch with CUDA"
        )


@functools.cache
def torch_has_cuda() -> bool:
    """Whether torch was built for GPUs, NVIDIA's or AMD's; torch itself is not imported."""
    package = importlib.util.find_spec("torch")
    if package is None or package.origin is None:
        return False
    version = runpy.run_path(str(Path(package.origin).with_name("version.py")))
    return bool(version.get("cuda") or version.get("hip"))


def local_gpus(name: str) -> int:
    """How many GPUs of this machine jobs may take, by the configured device name."""
    if name in ("auto", "cuda"):
        return len(visible_gpus())
    return int(name.startswith("cuda"))
