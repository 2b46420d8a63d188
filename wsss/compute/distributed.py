"""One training in several processes, one per GPU, that share every batch (data parallelism).

A launcher such as torchrun starts the processes. Each works on its part of the images of a step;
gradients are averaged, so that all processes take the same step. Where a loss is a mean over
pixels, the count runs over all processes (`all_sum`): the gradient is then that of the whole batch,
not a mean of means. They communicate by gloo on CPUs, by nccl on GPUs.
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
    """The index of this process, 0 for a single one."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes were launched together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_world_size() -> int:
    """How many of them run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def join_group(device: torch.device) -> None:
    """Join the other processes, if there are any."""
    if world_size() > 1 and not distributed.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, timeout=_PATIENCE)


def leave_group() -> None:
    """Wait for the other processes at the end, and leave the group."""
    if distributed.is_initialized():
        barrier()
        distributed.destroy_process_group()


def barrier() -> None:
    """Wait until all processes are here."""
    if world_size() > 1:
        distributed.all_reduce(torch.zeros(1))


@contextmanager
def rank_zero_first() -> Iterator[None]:
    """Run the block in the first process, then in the others, which read what it wrote."""
    if rank():
        barrier()
    yield
    if not rank():
        barrier()


def local_batch(batch: int, key: str) -> int:
    """Images per process and step.

    Args:
        key: the configuration's key, for the message.

    Raises:
        ValueError: it cannot be divided.
    """
    if batch % world_size():
        raise ValueError(
            f"{key} is {batch}, which {world_size()} devices cannot share evenly; set it to a "
            f"multiple of {world_size()}"
        )
    return batch // world_size()


def rank_key() -> tuple[int, ...]:
    """Tells the random numbers of processes apart; empty for a single process."""
    return (rank(),) if world_size() > 1 else ()


def all_sum(tensor: Shaped[Tensor, ...]) -> Shaped[Tensor, ...]:
    """The sum over all processes, without a gradient."""
    if world_size() == 1:
        return tensor
    summed = tensor.detach().clone()
    distributed.all_reduce(summed)
    return summed


def average(tensors: Sequence[Tensor]) -> None:
    """Replace tensors by their means over all processes, in one message."""
    if world_size() == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    distributed.all_reduce(flat)
    flat /= world_size()
    for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def means(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The means of measurements over all processes, on the CPU and without a gradient."""
    if not values:
        return {}
    # One transfer, and so one wait for a GPU.
    flat = torch.cat([value.detach().float().reshape(-1) for value in values.values()]).cpu()
    average([flat])
    parts = flat.split([value.numel() for value in values.values()])
    return {n: part.view(values[n].shape) for n, part in zip(values, parts, strict=True)}


def any_rank(condition: bool) -> bool:
    """Whether the condition holds in any process."""
    return bool(all_sum(torch.tensor(int(condition))))


class _Sum(torch.autograd.Function):
    """The sum over all processes, and in the backward pass that of their gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return all_sum(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return all_sum(gradients[0].contiguous())


def sum_with_gradient(tensor: Shaped[Tensor, ...]) -> Shaped[Tensor, ...]:
    """The sum over all processes; its gradient is the sum of theirs."""
    if world_size() == 1:
        return tensor
    summed: Tensor = _Sum.apply(tensor)  # type: ignore[no-untyped-call]
    return summed


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the batches of all processes, on any device.

    torch's own (``SyncBatchNorm``) runs on GPUs alone. With one process it is ``BatchNorm2d``, and
    its state is the same in any case.
    """

    def forward(
        self, input: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Normalise each channel."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        # Counts and sums of bfloat16 would be rounded.
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        size = all_sum(values.new_full((), values.numel() / values.shape[1]))
        mean = sum_with_gradient(values.sum((0, 2, 3))) / size
        centred = values - mean[:, None, None]
        variance = sum_with_gradient(centred.square().sum((0, 2, 3))) / size
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
        return scaled.to(input.dtype)


def share_batch_norm(module: nn.Module) -> None:
    """Let all batch normalisation inside a module run over all processes."""
    for part in module.modules():
        if type(part) is nn.BatchNorm2d:
            part.__class__ = SharedBatchNorm  # the same state, another forward pass
