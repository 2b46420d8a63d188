"""One training in several processes, one a GPU, that share every batch (data parallelism).

A launcher such as torchrun starts the processes. Each works on its share of the images of a step;
gradients are averaged, so that all processes take the same step. Where a loss is a mean over
pixels, the count runs over all processes (`total`): the gradient is then that of the whole batch,
not a mean of means. On CPUs they speak gloo, on GPUs nccl.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, distributed, nn

# One process may label images while others wait; torchrun sees deaths.
_PATIENCE = timedelta(days=1)


def rank() -> int:
    """The number of this process, 0 for the only one."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """How many processes were launched together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join(device: torch.device) -> None:
    """Meet the other processes, if there are any.

    Args:
        device: where this one computes.
    """
    if count() > 1 and not distributed.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, timeout=_PATIENCE)


def leave() -> None:
    """Wait for the others at the end, and part."""
    if distributed.is_initialized():
        wait()
        distributed.destroy_process_group()


def wait() -> None:
    """Go on once all processes are here."""
    if count() > 1:
        distributed.all_reduce(torch.zeros(1))


@contextmanager
def first_alone() -> Iterator[None]:
    """Let the first process do the block before the others, which then find what it kept."""
    if rank():
        wait()
    yield
    if not rank():
        wait()


def share(batch: int, key: str) -> int:
    """Images a process and step.

    Args:
        batch: images a step.
        key: of the configuration, for the message.

    Raises:
        ValueError: it cannot be divided.
    """
    if batch % count():
        raise ValueError(
            f"{key} is {batch}, which {count()} devices cannot share evenly; set it to a multiple "
            f"of {count()}"
        )
    return batch // count()


def place() -> tuple[int, ...]:
    """What tells the random numbers of processes apart; nothing where there is one."""
    return (rank(),) if count() > 1 else ()


def total(number: Shaped[Tensor, ...]) -> Shaped[Tensor, ...]:
    """The sum over all processes; nothing flows back through it."""
    if count() == 1:
        return number
    summed = number.detach().clone()
    distributed.all_reduce(summed)
    return summed


def average(tensors: Sequence[Tensor]) -> None:
    """Replace tensors by their means over all processes, in one message."""
    if count() == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    distributed.all_reduce(flat)
    flat /= count()
    for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def means(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The means of measurements over all processes, on the CPU and without a gradient."""
    copies = {name: value.detach().float().cpu() for name, value in values.items()}
    average(list(copies.values()))
    return copies


def agree(asked: bool) -> bool:
    """Whether any process was asked."""
    return bool(total(torch.tensor(int(asked))))


class _Sum(torch.autograd.Function):
    """The sum over all processes, and in the backward pass that of their gradients."""

    @staticmethod
    def forward(ctx: Any, number: Tensor) -> Tensor:
        return total(number)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return total(gradients[0].contiguous())


def _all(number: Tensor) -> Tensor:
    summed: Tensor = _Sum.apply(number)  # type: ignore[no-untyped-call]
    return summed


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the batches of all processes, on any device.

    torch's own (``SyncBatchNorm``) runs on GPUs alone. With one process it is ``BatchNorm2d``, and
    its state is that one's in any case.
    """

    def forward(
        self, input: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Normalise each channel."""
        if not self.training or count() == 1:
            return super().forward(input)
        size = input.new_tensor(input.numel() / input.shape[1])
        size = total(size)
        mean = _all(input.sum((0, 2, 3))) / size
        centred = input - mean[:, None, None]
        variance = _all(centred.square().sum((0, 2, 3))) / size
        if self.track_running_stats:
            assert self.momentum is not None
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            with torch.no_grad():
                self.num_batches_tracked += 1
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * size / (size - 1), self.momentum)
        scaled: Tensor = centred * (variance + self.eps).rsqrt()[:, None, None]
        if self.affine:
            scaled = scaled * self.weight[:, None, None] + self.bias[:, None, None]
        return scaled


def share_batch_norm(module: nn.Module) -> None:
    """Let all batch normalisation inside a module run over all processes."""
    for part in module.modules():
        if type(part) is nn.BatchNorm2d:
            part.__class__ = SharedBatchNorm  # the same state, another forward pass
