"""In what precision a stage multiplies: ``compute.precision``, set and recorded in one place.

| | products and convolutions in general | trained parts: refiners' heads, segmenters |
|---|---|---|
| ``float32`` | float32 | float32 |
| ``tf32`` | float32 with factors of 10 bits, on tensor cores | the same |
| ``bf16`` | as ``tf32`` | bfloat16 by torch's autocast; weights stay float32 |

TF32 is of NVIDIA's GPUs from Ampere on; elsewhere its products are those of float32. Sums, norms,
softmax and losses are float32 in any case. The frozen encoder has a type of its own
(``clip.precision``).
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from wsss.compute.device import pick_device
from wsss.compute.numerics import Numerics, in_force, numerics_in_force, resolved

if TYPE_CHECKING:  # else whoever reads a configuration would wait for torch
    import torch
    from torch import nn

_log = logging.getLogger(__name__)
Products = Literal["ieee", "tf32"]
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
_switching = threading.Lock()
_asked: list[tuple[Products, bool]] = []
"""What the blocks that run now ask of torch's switches, see `_cuda_switches`."""
_before: list[Any] = []
"""How the switches stood before the first of these blocks."""


@contextmanager
def computing(device: str, precision: str, *, fixed_sizes: bool = False) -> Iterator[Numerics]:
    """Compute on a device in a precision, until the block ends.

    Threads may compute in different precisions. Torch's switches for ``tf32`` are those of the
    process: calls on a GPU that overlap all multiply in float32 where one of them asks for it.

    Args:
        device: see `wsss.compute.device.pick_device`, which is called.
        precision: the configured one, ``auto`` included.
        fixed_sizes: all batches are of one size, so that cuDNN may try its algorithms first.

    Raises:
        ValueError: there is no such device.
    """
    kind = pick_device(device).type
    numerics = Numerics(kind, resolved(precision, kind))
    if numerics != in_force():  # said already
        _log.info("precision %s", numerics.precision)
    products: Products = "ieee" if numerics.precision == "float32" else "tf32"
    switches = nullcontext() if kind == "cpu" else _cuda_switches(products, fixed_sizes)
    with numerics_in_force(numerics), switches:
        yield numerics


@contextmanager
def _cuda_switches(products: Products, fixed_sizes: bool) -> Iterator[None]:
    """Torch's switches for products, convolutions and the choice of algorithms.

    The first of the blocks that overlap notes how they stood, the last one restores that.
    """
    import torch

    backends: Any = torch.backends  # its types lack these names
    parts = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)

    def switch() -> None:
        """As all blocks together ask for; without any, as it was before."""
        precisions, benchmark = _before
        if _asked:
            exact = any(precision == "ieee" for precision, _ in _asked)
            precisions = ["ieee" if exact else "tf32"] * len(parts)
            benchmark = benchmark or any(fixed for _, fixed in _asked)
        for part, value in zip(parts, precisions, strict=True):
            part.fp32_precision = value
        backends.cudnn.benchmark = benchmark

    with _switching:
        if not _asked:
            _before[:] = [part.fp32_precision for part in parts], backends.cudnn.benchmark
        _asked.append((products, fixed_sizes))
        switch()
    try:
        yield
    finally:
        with _switching:
            _asked.remove((products, fixed_sizes))
            switch()


def on_device(
    *, fixed_sizes: bool = False, when: Callable[[Mapping[str, Any]], bool] = lambda _: True
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Let a stage's function compute as its argument ``compute`` says, see `computing`.

    Args:
        when: whether it computes on a device at all, by its keyword arguments.
    """

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        @functools.wraps(function)
        def run(*args: Parameters.args, **values: Parameters.kwargs) -> Result:
            if not when(values):
                return function(*args, **values)
            compute: Any = values["compute"]  # wsss.config, where its type is, imports this room
            with computing(compute.device, compute.precision, fixed_sizes=fixed_sizes):
                return function(*args, **values)

        return run

    return decorate


def autocast(device: torch.device) -> torch.autocast:
    """For trained parts: bfloat16 if that is in force, else nothing."""
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=in_force().precision == "bf16")


def autocast_calls(module: nn.Module, device: torch.device) -> None:
    """Let each call of a module, or of a part of it, multiply in bfloat16 if that is in force.

    What a call returns is float32 again, so that losses, labels and the frozen encoder around it
    have nothing to do with it. Parts that are called inside such a call are part of it.

    Args:
        module: a trained one.
    """
    if in_force().precision != "bf16":
        return
    for part in module.modules():
        part.forward = functools.partial(_autocast_forward, part, device)


def _autocast_forward(module: nn.Module, device: torch.device, *values: Any, **named: Any) -> Any:
    import torch

    forward: Callable[..., Any] = type(module).forward
    if torch.is_autocast_enabled(device.type):
        return forward(module, *values, **named)
    with torch.autocast(device.type, torch.bfloat16):
        return _widened(forward(module, *values, **named))


def _widened(value: Any) -> Any:
    """Tensors of bfloat16 as float32, also in tuples, lists and mappings."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.float() if value.dtype == torch.bfloat16 else value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_widened, value))
    if isinstance(value, tuple | list):
        return type(value)(map(_widened, value))
    if isinstance(value, dict):
        return {key: _widened(item) for key, item in value.items()}
    return value
