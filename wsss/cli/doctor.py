"""Whether this machine can do what a configuration asks for: the checks of `wsss doctor`."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsss import __version__
from wsss._compat.missing_packages import SEGMENTERS, explain_import
from wsss.cli.weights_list import weights_of
from wsss.compute import shared_memory
from wsss.compute.cuda import (
    TorchBuild,
    card_capabilities,
    driver_version,
    is_older,
    torch_build,
)
from wsss.compute.device import cuda_failure
from wsss.compute.gpus import signs_of_gpus
from wsss.config.model import Config

State = Literal["ok", "warning", "failure"]
_PYTHON = ((3, 11), (3, 13), (3, 14))
"""Tested from the first on; tried in part from the second on; not supported from the third on."""
_FULL, _TIGHT = 1e9, 10e9  # bytes that are free in the folder of the results
_SHARED = 1 << 30  # bytes in /dev/shm with which batches of a segmenter fit
_SIDE = 64  # of what is multiplied to see that it works
_CLOSE = 1e-4  # relative to the largest value
_OTHER_BUILD = "install another build of torch (docs/howto/machine.md)"


@dataclass(frozen=True)
class Check:
    """What was looked at, and what to do about it."""

    subject: str
    state: State
    result: str
    remedy: str = ""

    def __str__(self) -> str:
        """One line of a table, and the remedy below it."""
        line = f"{self.state:8} {self.subject:12} {self.result}"
        return f"{line}\n{'':21} -> {self.remedy}" if self.remedy else line


def all_checks(configs: Sequence[Config], results: Path, cache: Path) -> Iterator[Check]:
    """All checks, one after the other; nothing is fetched.

    Args:
        configs: the runs, at least one; the first says the device.
        results: folder of the results, or where it will be.
        cache: of the stages, which holds downloads.
    """
    device = configs[0].compute.device
    yield _python()
    yield Check("wsss", "ok", __version__)
    build = torch_build()
    if not build.version:
        yield Check("torch", "failure", "not installed", "pip install wsss")
        return
    yield Check("torch", "ok", str(build))
    gpu = _gpu(device, build)
    yield gpu
    yield _arithmetic("cpu" if device == "cpu" or not _has_usable_gpu(gpu) else "cuda")
    yield _opencv()
    yield _disk(results)
    yield _shared_memory()
    yield _segmenters(any(config.retrain.enabled for config in configs))
    yield _crf()
    yield from _weights(configs, cache)


def _python() -> Check:
    version, (first, partly, after) = platform.python_version(), _PYTHON
    if first <= sys.version_info[:2] < partly:
        return Check("Python", "ok", version)
    tested = ", ".join(f"{first[0]}.{minor}" for minor in range(first[1], partly[1]))
    remedy = f"make a virtual environment of Python {tested}"
    if partly <= sys.version_info[:2] < after:
        return Check("Python", "warning", f"{version}, tried in part", f"if it fails, {remedy}")
    return Check("Python", "failure", version, remedy)


def _gpu(device: str, build: TorchBuild) -> Check:
    """Cards, driver and build, and whether they go together."""
    if device == "cpu":
        return Check("GPU", "ok", "not asked for: compute.device is cpu")
    sign = signs_of_gpus()
    if not sign:
        failed = device.startswith("cuda")
        remedy = f"compute.device is {device}: set it to auto, or run where there is a GPU"
        text = "none, so the CPU computes" if not failed else "none"
        return Check("GPU", "failure" if failed else "ok", text, remedy if failed else "")
    driver = driver_version()
    cards = card_capabilities()
    names = ", ".join(f"{name} ({capability})" for name, capability in cards)
    text = "; ".join(filter(None, [sign, names, f"driver {driver}" if driver else "no driver"]))
    if not (build.cuda or build.hip):
        remedy = f"{_OTHER_BUILD}, or set compute.device to cpu"
        return Check("GPU", "failure", f"{text}; this torch is for the CPU alone", remedy)
    if driver and build.oldest_driver and is_older(driver, build.oldest_driver):
        needed = f"CUDA {build.cuda} needs a driver of {build.oldest_driver} or newer"
        return Check("GPU", "failure", f"{text}; {needed}", f"update the driver, or {_OTHER_BUILD}")
    oldest = build.oldest_capability
    if old := [name for name, capability in cards if oldest and is_older(capability, oldest)]:
        needed = f"CUDA {build.cuda} needs cards of capability {oldest} or newer"
        return Check("GPU", "failure", f"{text}; {needed}: not {', '.join(old)}", _OTHER_BUILD)
    if failure := cuda_failure():
        remedy = "in a container pass the GPUs in (--nv, --gpus all); else mend what torch says"
        return Check("GPU", "failure", f"{text}; {failure}", remedy)
    return Check("GPU", "ok", text)


def _has_usable_gpu(gpu: Check) -> bool:
    return gpu.state == "ok" and not cuda_failure()


def _arithmetic(device: str) -> Check:
    """A product of matrices and a convolution, against the same in float64."""
    import torch
    from torch.nn import functional as F

    generator = torch.Generator().manual_seed(0)
    matrix = torch.rand(_SIDE, _SIDE, generator=generator, dtype=torch.float64)
    images, kernel = matrix.view(1, 1, _SIDE, _SIDE), matrix[:3, :3].reshape(1, 1, 3, 3)
    exact = {"product": matrix @ matrix, "convolution": F.conv2d(images, kernel)}
    try:
        half = matrix.float().to(device)
        actual = {
            "product": half @ half,
            "convolution": F.conv2d(images.float().to(device), kernel.float().to(device)),
        }
        # TF32, which torch may use for convolutions, has 10 bits.
        tolerance = _CLOSE if device == "cpu" else 2**-9
        wrong = [
            name
            for name, value in actual.items()
            if (value.cpu() - exact[name]).abs().max() > tolerance * exact[name].abs().max()
        ]
    except RuntimeError as error:  # no kernel for this card, no memory, …
        reason = str(error).splitlines()[0]
        return Check("arithmetic", "failure", f"on {device}: {reason}", _OTHER_BUILD)
    if wrong:
        text = f"wrong {' and '.join(wrong)} on {device}"
        return Check("arithmetic", "failure", text, "reinstall torch; if that fails, test the card")
    return Check("arithmetic", "ok", f"product and convolution on {device}")


def _opencv() -> Check:
    try:
        import cv2
    except ImportError as error:
        remedy = explain_import(error) or "pip install opencv-python-headless"
        return Check("OpenCV", "failure", str(error), remedy)
    return Check("OpenCV", "ok", cv2.__version__)


def _disk(results: Path) -> Check:
    folder = results.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    state: State = "failure" if free < _FULL else "warning" if free < _TIGHT else "ok"
    remedy = "free space, or work in a folder of another disk" if state != "ok" else ""
    return Check("disk", state, f"{free / 1e9:.1f} GB free at {folder}", remedy)


def _shared_memory() -> Check:
    free = shared_memory.free_bytes()
    if free is None:
        return Check("/dev/shm", "ok", "without a limit")
    text = f"{free / 2**30:.2f} GiB free"
    if free >= _SHARED:
        return Check("/dev/shm", "ok", text)
    remedy = "start the container with --shm-size=2g or --ipc=host, or set compute.workers to 1"
    return Check("/dev/shm", "warning", text, remedy)


def _segmenters(needed: bool) -> Check:
    missing = [name for name in SEGMENTERS if importlib.util.find_spec(name) is None]
    if not missing:
        return Check("segmenters", "ok", ", ".join(SEGMENTERS))
    text = f"not installed: {', '.join(missing)}"
    if not needed:
        return Check("segmenters", "ok", f"{text}; this configuration trains none")
    remedy = "pip install 'wsss[segment]', or set retrain.enabled to false"
    return Check("segmenters", "failure", text, remedy)


def _crf() -> Check:
    if importlib.util.find_spec("pydensecrf") is None:
        return Check("CRF", "ok", "torch (masks.crf.backend); not installed: pydensecrf")
    return Check("CRF", "ok", "pydensecrf, torch (masks.crf.backend)")


def _weights(configs: Sequence[Config], cache: Path) -> Iterator[Check]:
    """The weights that the runs name."""
    try:
        listed = weights_of(configs, cache)
    except (ValueError, RuntimeError) as error:  # a name that nobody knows
        yield Check("weights", "failure", str(error), "correct the configuration")
        return
    if not listed:
        yield Check("weights", "ok", "none needed")
    for weights in listed:
        if weights.path is not None:
            yield Check("weights", "ok", str(weights.path))
        else:
            # Jobs fetch what has a name; nobody fetches a file.
            state: State = "warning" if weights.fetch else "failure"
            yield Check("weights", state, f"{weights.name}: missing", weights.remedy)


def write_checks(checks: Iterator[Check], echo: Callable[[str], None]) -> bool:
    """Write each check as soon as it is done; says whether none failed."""
    failed = False
    for check in checks:
        echo(str(check))
        failed |= check.state == "failure"
    return not failed
