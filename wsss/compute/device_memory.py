"""Work that fits into a GPU's memory: batches planned by their bytes, and cut where that fails."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from wsss.errors import WsssError

_log = logging.getLogger(__name__)
_SHARE = 0.8
"""Of the free memory that is planned with: torch loses some of it between blocks."""

Result = TypeVar("Result")


class DeviceMemoryError(WsssError, RuntimeError):
    """One image, or one step, does not fit into the memory of the GPU."""


class FittingBatches:
    """Runs batches in parts that fit, and remembers the size that did.

    Args:
        remedy: what a person can do where not even one image fits: keys to set.
    """

    def __init__(self, remedy: str) -> None:
        self._remedy = remedy
        self._most: int | None = None

    def run(
        self, function: Callable[[slice], list[Result]], count: int, *, bytes_each: float = 0
    ) -> list[Result]:
        """The results of all images of a batch, in their order.

        Args:
            function: from some of the images to their results.
            count: of images.
            bytes_each: memory that an image takes, as planned; 0 where that is unknown.

        Raises:
            DeviceMemoryError: one image does not fit.
        """
        if self._most is None and bytes_each and (free := free_bytes()) is not None:
            self._most = max(1, int(_SHARE * free / bytes_each))
        results: list[Result] = []
        while len(results) < count:
            start = len(results)
            size = min(count - start, self._most or count)
            part, reason = _attempt(function, slice(start, start + size))
            if part is not None:
                results += part
                continue
            if size == 1:
                raise DeviceMemoryError(f"out of memory on the GPU: {reason}; {self._remedy}")
            release()
            self._most = size // 2
            _log.warning(
                "%d images at once do not fit into the memory of the GPU; going on with %d. A "
                "lower compute.batch saves the attempt",
                size,
                self._most,
            )
        return results


def with_less_memory(
    function: Callable[[], Result], save_memory: Callable[[], bool], remedy: str
) -> Result:
    """The result of a step; where it does not fit, after saving memory.

    What a failed attempt changed stays, such as running statistics of batch normalisation.

    Args:
        function: can be called again after it failed.
        save_memory: makes it take less, and says whether it does.
        remedy: what a person can do where nothing is left to save: keys to set.

    Raises:
        DeviceMemoryError: it does not fit.
    """
    while True:
        results, reason = _attempt(lambda _: [function()], slice(1))
        if results is not None:
            return results[0]
        if not save_memory():
            raise DeviceMemoryError(f"out of memory on the GPU: {reason}; {remedy}")
        release()
        _log.warning(
            "a step does not fit into the memory of the GPU; from now on less is kept for the "
            "backward pass, and computed again there. compute.save_memory: true saves the attempt"
        )


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


def _attempt(
    function: Callable[[slice], list[Result]], part: slice
) -> tuple[list[Result] | None, str]:
    """The results, or why they do not fit. By then the tensors of the attempt are gone."""
    try:
        return function(part), ""
    except torch.OutOfMemoryError as error:
        return None, reason_of(error)
