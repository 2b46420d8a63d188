"""How this thread computes, and how that stands in what stages declare and record.

`wsss.compute.precision` sets it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

Precision = Literal["float32", "tf32", "bf16"]
_PRECISION = "compute.precision"
_ON_DEVICE = frozenset({
    "tag_noise", "cams", "refine_train", "refine_apply", "refine_predict", "refine_labels",
    "retrain", "predict",
})  # fmt: skip
"""Stages whose entry modules compute `on_device`. A test holds both together: whoever reads a
configuration would wait for torch otherwise."""


@dataclass(frozen=True)
class Numerics:
    """How the running stage computes."""

    device: str = "cpu"
    """Its kind: ``cpu`` or ``cuda``."""
    precision: Precision = "float32"


_OUTSIDE = Numerics()
_in_force = ContextVar("_in_force", default=_OUTSIDE)


@contextmanager
def numerics_in_force(numerics: Numerics) -> Iterator[None]:
    """Say of this thread, until the block ends, how it computes."""
    before = in_force()
    _in_force.set(numerics)
    try:
        yield
    finally:
        _in_force.set(before)


def in_force() -> Numerics:
    """How this thread computes now: float32 on the CPU outside of
    `wsss.compute.precision.computing`."""
    return _in_force.get()


def resolved(precision: str, kind: str) -> Precision:
    """The precision that ``auto`` means, and that a device has.

    Args:
        kind: of the device, ``cpu`` or ``cuda``.
    """
    if precision == "bf16":
        return "bf16"
    return "tf32" if kind != "cpu" and precision in ("auto", "tf32") else "float32"


def watched_precision(stage: str, configured: str) -> dict[str, str]:
    """The configured precision, by its key, where a change of it reruns a stage.

    What ``auto`` means is known to the job alone, and another machine is no reason for a rerun.

    Args:
        configured: ``compute.precision``.
    """
    watches = stage in _ON_DEVICE and configured != "auto"
    return {_PRECISION: configured} if watches else {}


def recorded_precision() -> dict[str, str]:
    """The precision in which this thread computes, by its key; nothing where it is float32.

    It is part of every key, so nothing that was computed in one is taken up in another.
    """
    precision = in_force().precision
    return {} if precision == "float32" else {_PRECISION: precision}


def recorded_device() -> str:
    """The kind of device on which this thread computes; empty for a CPU."""
    kind = in_force().device
    return "" if kind == "cpu" else kind
