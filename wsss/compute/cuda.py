"""What torch was built for, NVIDIA's driver and cards, without importing torch."""

from __future__ import annotations

import functools
import importlib.util
import re
import runpy
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from wsss.compute.machine import output_of

_PATIENCE = 30  # seconds that nvidia-smi may take
_DRIVER_FILE = Path("/proc/driver/nvidia/version")  # of the host, in a container too
_OLDEST_DRIVERS = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}
"""By the major version of CUDA: https://docs.nvidia.com/cuda/cuda-toolkit-release-notes, table of
minor version compatibility."""

_OLDEST_CAPABILITIES = {11: "3.7", 12: "5.0", 13: "7.5"}
"""The same of cards; 7.5 is Turing. A build may leave out some that its CUDA has."""


@dataclass(frozen=True)
class TorchBuild:
    """What the installed torch was built for."""

    version: str
    """Empty where torch is not installed."""
    cuda: str | None
    """Version of CUDA, such as ``13.0``."""
    hip: str | None
    """Version of AMD's ROCm."""

    def __str__(self) -> str:
        platform = f"CUDA {self.cuda}" if self.cuda else "ROCm" if self.hip else "the CPU alone"
        return f"torch {self.version} for {platform}"

    @property
    def oldest_driver(self) -> str:
        """The oldest driver of NVIDIA that serves it; empty where none is known."""
        major = (self.cuda or "").partition(".")[0]
        return _OLDEST_DRIVERS.get(int(major), "") if major.isdigit() else ""

    @property
    def oldest_capability(self) -> str:
        """The oldest compute capability of NVIDIA's cards that it has kernels for; or empty."""
        major = (self.cuda or "").partition(".")[0]
        return _OLDEST_CAPABILITIES.get(int(major), "") if major.isdigit() else ""


@functools.cache
def torch_build() -> TorchBuild:
    """How torch was built; torch itself is not imported."""
    package = importlib.util.find_spec("torch")
    if package is None or package.origin is None:
        return TorchBuild("", None, None)
    names = runpy.run_path(str(Path(package.origin).with_name("version.py")))
    return TorchBuild(str(names["__version__"]), names.get("cuda"), names.get("hip"))


def torch_has_cuda() -> bool:
    """Whether torch was built for GPUs, NVIDIA's or AMD's."""
    return bool(torch_build().cuda or torch_build().hip)


def driver_version() -> str:
    """The version of NVIDIA's driver, such as ``580.65.06``; empty where there is none."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    if version := re.search(r"^\d+(\.\d+)+$", output_of(query, _PATIENCE).strip(), re.MULTILINE):
        return version[0]
    with suppress(OSError):
        text = _DRIVER_FILE.read_text(encoding="utf-8", errors="replace")
        if version := re.search(r"\b\d{3,}\.\d+(\.\d+)*", text):
            return version[0]
    return ""


def card_capabilities() -> list[tuple[str, str]]:
    """Name and compute capability of each card that nvidia-smi lists; empty where it says none."""
    query = ["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    return re.findall(r"^(.+?), (\d+\.\d+)$", output_of(query, _PATIENCE), re.MULTILINE)


def is_older(version: str, other: str) -> bool:
    """Whether a version of numbers and points comes before another one."""
    first, second = (tuple(map(int, re.findall(r"\d+", text))) for text in (version, other))
    return first < second
