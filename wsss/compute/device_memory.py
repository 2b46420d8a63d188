"""Work that fits into a GPU's memory: batches planned by their bytes, and cut where that fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from wsss.errors import WsssError

_log = logging.getLogger(__name__)
_SHARE = 0.8
"""Of the free memory that is planned with: torch loses some of it between blocks."""

Result = TypeVar("Result")


class DeviceMemoryError(WsssError, RuntimeError):
    """One image, or one step, does not fit into the memory of the GPU."""


class FittingBatches:
    """Runs batches in parts that fit.

    Each batch is planned by the memory that is free by then. After a failure no later part takes
    more than what is tried next: in bytes, since the next batch may have images of another size;
    in images where the bytes of an image are unknown.

    Args:
        remedy: what a person can do where not even one image fits: keys to set.
    """

    def __init__(self, remedy: str) -> None:
        self._remedy = remedy
        self._most_images: int | None = None
        self._most_bytes: int | None = None

    def run(
        self, function: Callable[[slice], list[Result]], count: int, *, bytes_each: int = 0
    ) -> list[Result]:
        """The results of all images of a batch, in their order.

        Args:
            function: from some of the images to their results.
            bytes_each: memory that an image takes, as planned; 0 where that is unknown.

        Raises:
            DeviceMemoryError: one image does not fit.
        """
        results: list[Result] = []
        most = self._planned(bytes_each)
        while len(results) < count:
            start = len(results)
            size = min(count - start, most or count)
            part, reason = _attempt(function, slice(start, start + size))
            if part is not None:
                results += part
                continue
            if size == 1:
                raise _too_little(reason, self._remedy)
            release()
            most = size // 2
            if bytes_each:
                self._most_bytes = most * bytes_each
            else:
                self._most_images = most
            _log.warning(
                "%d images at once do not fit into the memory of the GPU; going on with %d. A "
                "lower compute.batch saves the attempt",
                size,
                most,
            )
        return results

    def _planned(self, bytes_each: int) -> int | None:
        """Images of a part; None for all of the batch."""
        if not bytes_each:
            return self._most_images
        free = free_bytes()
        limits = [None if free is None else int(_SHARE * free), self._most_bytes]
        return min(
            (max(1, limit // bytes_each) for limit in limits if limit is not None), default=None
        )


def with_less_memory(
    function: Callable[[], Result], save_memory: Callable[[], bool], remedy: str, module: nn.Module
) -> Result:
    """The result of a step; where it does not fit, after saving memory.

    A failed attempt leaves no trace in the module: its buffers, such as the running statistics of
    batch normalisation, are set back before the step is repeated.

    Args:
        function: can be called again after it failed. It seeds its own random draws and begins
            with no gradients, so the repeated step draws what the failed one drew.
        save_memory: makes it take less, and says whether it does.
        remedy: what a person can do where nothing is left to save: keys to set.

    Raises:
        DeviceMemoryError: it does not fit.
    """
    before = [buffer.clone() for buffer in module.buffers()]
    while True:
        results, reason = _attempt(lambda _: [function()], slice(1))
        if results is not None:
            return results[0]
        if not save_memory():
            raise _too_little(reason, remedy)
        release()
        for buffer, value in zip(module.buffers(), before, strict=True):
            buffer.copy_(value)
        _log.warning(
            "a step does not fit into the memory of the GPU; from now on less is kept for the "
            "backward pass, and computed again there. compute.save_memory: true saves the attempt"
        )


@contextmanager
def without_repetition(remedy: str) -> Iterator[None]:
    """Of what may be half done where it does not fit, as a step of an optimiser.

    Args:
        remedy: what a person can do: keys to set.

    Raises:
        DeviceMemoryError: it does not fit.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise _too_little(reason_of(error), remedy) from None


def free_bytes() -> int | None:
    """Memory of the current GPU that can still be taken; None without a GPU."""
    if not torch.cuda.is_initialized():
        return None
    free, _ = torch.cuda.mem_get_info()
    return free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()


def release() -> None:
    """Give memory that torch holds for later back to the GPU."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def reason_of(error: BaseException) -> str:
    """What torch says of it, in one sentence."""
    return str(error).removeprefix("CUDA out of memory. ").partition(". ")[0]


def _too_little(reason: str, remedy: str) -> DeviceMemoryError:
    return DeviceMemoryError(f"out of memory on the GPU: {reason}; {remedy}")


def _attempt(
    function: Callable[[slice], list[Result]], part: slice
) -> tuple[list[Result] | None, str]:
    """The results, or why they do not fit. By then the tensors of the attempt are gone."""
    try:
        return function(part), ""
    except torch.OutOfMemoryError as error:
        return None, reason_of(error)
