"""From the configured device name to torch's device."""

from __future__ import annotations

import functools
import logging
import os
import warnings
from typing import TYPE_CHECKING

from wsss.compute.cuda import (
    driver_version,
    is_older,
    torch_build,
    torch_has_cuda,
)
from wsss.compute.gpus import (
    HELD,
    VISIBLE,
    claim_gpus,
    refuse_parts,
    release_gpus,
    signs_of_gpus,
    visible_gpus,
)

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)
_ORDER = "CUDA_DEVICE_ORDER"


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU; ``cpu``, ``cuda``, ``cuda:1`` are torch's.

    A process holds its GPU until it ends (`wsss.compute.gpus`). ``auto`` and ``cuda`` take a free
    one. In a Slurm job, which may share its node, ``auto`` takes only a GPU that Slurm assigned. In
    a training of several processes each takes the GPU of its rank. The first call logs the device.

    Where there are GPUs that torch cannot use, ``auto`` warns and takes the CPU; their locks are
    released.

    Raises:
        ValueError: there is no such device, several processes would share it, or torch cannot use
            it.
    """
    device = _picked(name)
    _log_once(logging.INFO, f"computing on {_description(device)}")
    return device


def _picked(name: str) -> torch.device:
    import torch  # here, so that reading a configuration does not cost torch's start-up

    kind, _, gpu_index = name.partition(":")
    if name == "cpu":
        return torch.device("cpu")
    if kind not in ("auto", "cuda"):
        raise ValueError(f"device {name!r}: expected auto, cpu, cuda or cuda:1 …")
    os.environ.setdefault(
        _ORDER, "PCI_BUS_ID"
    )  # that of nvidia-smi; CUDA's own has fast ones first
    require_cuda(name)
    if kind == "auto" and "SLURM_JOB_ID" in os.environ and VISIBLE not in os.environ:
        if visible_gpus():
            _log_once(
                logging.WARNING,
                "this node has GPUs, but Slurm lent none to this job, so it computes on the CPU; "
                "ask for one (resource gpu), or set compute.device to cuda to take what is there",
            )
        return torch.device("cpu")
    if not torch_has_cuda():
        return _cpu_instead(cuda_failure())
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if gpu_index:
            raise ValueError(
                f"compute.device is {name}, but several processes were launched, which need a GPU "
                "each; set it to cuda, or launch one process"
            )
        gpu_index = os.environ["LOCAL_RANK"]
    if kind == "auto" and _unusable:  # looking again would wait for a GPU that is of no use
        return torch.device("cpu")
    allowed = os.environ.get(VISIBLE)
    claimed = HELD not in os.environ and _claim(gpu_index)
    if failure := cuda_failure():
        if claimed:
            _release(allowed)
        if kind == "auto":
            return _cpu_instead(failure)
        raise unusable(name, failure)
    device = torch.device(f"cuda:{gpu_index}" if gpu_index else "cuda")
    if gpu_index:
        torch.cuda.set_device(device)  # else torch keeps a context on the first GPU as well
    return device


def _claim(gpu_index: str) -> bool:
    """Hold the GPU of an index, or any; False where none is listed."""
    if not (gpus := visible_gpus()):
        return False
    if gpu_index:
        if int(gpu_index) >= len(gpus):
            raise ValueError(
                f"GPU {gpu_index} was asked for (0-based), but {len(gpus)} can be seen here"
            )
        chosen = [gpus[int(gpu_index)]]
        claim_gpus(refuse_parts(chosen, f"GPU {gpu_index} was") if int(gpu_index) else chosen)
    else:
        os.environ[VISIBLE] = claim_gpus(gpus)[0].name  # CUDA has not looked at it yet
    os.environ[HELD] = "1"
    return True


def _release(allowed: str | None) -> None:
    """Undo `_claim`; ``allowed`` is what the environment named before."""
    release_gpus()
    del os.environ[HELD]
    if allowed is None:
        os.environ.pop(VISIBLE, None)
    else:
        os.environ[VISIBLE] = allowed


_unusable: list[str] = []
"""Why the GPUs that are here cannot be used, once that is known."""


def _cpu_instead(failure: str) -> torch.device:
    """The CPU in place of GPUs that cannot be used; the first time a warning says why."""
    import torch

    if not _unusable and (sign := signs_of_gpus()):
        _unusable.append(failure)
        _log.warning(cpu_warning(sign, failure))
    return torch.device("cpu")


def cpu_warning(sign: str, failure: str) -> str:
    """The warning that the CPU computes although there are GPUs.

    Args:
        sign: of GPUs, see `wsss.compute.gpus.signs_of_gpus`.
        failure: see `cuda_failure`.
    """
    return (
        f"WARNING: {sign}, but torch cannot use any, so this computes on the CPU: {failure}; "
        "`wsss doctor` tells what to do; compute.device: cpu says that this is meant"
    )


def unusable(name: str, failure: str) -> ValueError:
    """The error that a GPU is asked for, but cannot be used.

    Args:
        failure: see `cuda_failure`.
    """
    return ValueError(
        f"no GPU: compute.device is {name}, but this machine shows none to torch: {failure}; set "
        "it to cpu or auto, or run where there is one; `wsss doctor` tells what to do"
    )


@functools.cache
def _log_once(level: int, text: str) -> None:
    _log.log(level, text)


def _description(device: torch.device) -> str:
    """A device as a log names it: ``the CPU``, ``cuda (NVIDIA A100-SXM4-40GB)``."""
    import torch

    if device.type == "cpu":
        return "the CPU"
    return f"{device} ({torch.cuda.get_device_name(device)})"


def cuda_failure() -> str:
    """Why torch cannot compute on a GPU, in its own words; empty where it can.

    Imports torch, and starts CUDA in this process.
    """
    import torch  # here, so that reading a configuration does not cost torch's start-up

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the same text as the error below
        if torch.cuda.is_available():
            return ""
        reason = "torch.cuda.is_available() is false"
        try:
            torch.cuda.init()
        except Exception as error:  # of several types, by what fails
            reason = " ".join(str(error).split()).removesuffix(".") or repr(error)
    driver = driver_version() or "unknown"
    return f"torch says: {reason}; driver {driver}; {torch_build()}"


def require_cuda(name: str) -> None:
    """Refuse a GPU where torch was built for the CPU alone; looks for no GPU.

    Raises:
        ValueError: it says what to set.
    """
    if name.startswith("cuda") and not torch_has_cuda():
        raise ValueError(
            f"no GPU: this torch has no CUDA; set compute.device to cpu or auto (it is {name}), or "
            "install a torch with CUDA"
        )


def local_problem(name: str) -> str:
    """A warning that jobs on this machine will leave its GPUs alone; empty where they will not.

    It is for programs that start jobs: neither torch is imported nor CUDA started, so problems that
    show only then are missed.
    """
    if name != "auto" or not (sign := signs_of_gpus()):
        return ""
    build = torch_build()
    if not torch_has_cuda():
        return cpu_warning(sign, f"this is {build}")
    driver = driver_version()
    if driver and build.oldest_driver and is_older(driver, build.oldest_driver):
        needed = f"{build} needs a driver of {build.oldest_driver} or newer"
        return cpu_warning(sign, f"{needed}, but this one is {driver}")
    return ""


def local_gpus(name: str) -> int:
    """How many GPUs of this machine jobs may take, by the configured device name."""
    if name in ("auto", "cuda"):
        return len(visible_gpus())
    return int(name.startswith("cuda"))
