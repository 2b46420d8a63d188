"""Processes that load batches ahead of the training: what they need, and how they fail.

They hand over batches in shared memory. Where there is none left, torch's loader would wait for
ever: the batch is lost after its process has reported it as done.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from unittest import mock

from torch.utils.data import dataloader, get_worker_info

from wsss.compute import distributed
from wsss.compute.shared_memory import SharedMemoryError, check_room
from wsss.errors import WsssError
from wsss.retrain.mm import FUNCTIONS, pseudo_collate

BYTES_PER_PIXEL: Final = 11
"""Of a sample: three of the photo, eight of its labels (int64)."""
_AHEAD: Final = 2  # batches that each process loads ahead
_PAGES: Final = 2 * 4096  # bytes by which photo and labels may be rounded up
_PATIENCE: Final = 900  # seconds: far more than a batch takes from a slow network share
_INTERVAL: Final = 5  # seconds
_Iterator: Any = dataloader._MultiProcessingDataLoaderIter
_TRY: Final = _Iterator._try_get_data
_LOST = re.compile(
    r"exited unexpectedly|timed out|killed by signal|out of shared memory|no longer possible"
)


class LoaderError(WsssError, RuntimeError):
    """A process that loads batches failed, died or does not answer."""


def loader_settings(workers: int) -> dict[str, Any]:
    """What torch's loader is told; one worker is the training process itself."""
    if workers <= 1:
        return {"num_workers": 0}
    return {
        "num_workers": workers,
        "prefetch_factor": _AHEAD,
        "timeout": _PATIENCE,
        "collate_fn": {"type": "shared_collate"},
    }


@contextmanager
def loading(workers: int, batch: int, crop: int) -> Iterator[None]:
    """Check that batches fit into shared memory, and say in one sentence why loading them failed.

    Args:
        workers: ``compute.workers``.
        batch: images per process and step.
        crop: pixels of a side.

    Raises:
        SharedMemoryError: there is too little.
        LoaderError: a process failed on an image, died, or does not answer.
    """
    if workers > 1:
        batches = 1 + _AHEAD * workers  # one is in use
        needed = batches * batch * (BYTES_PER_PIXEL * crop**2 + _PAGES)
        trainings = distributed.local_world_size()
        check_room(trainings * needed, f"{trainings * workers} processes that load batches")
    try:
        with mock.patch.object(_Iterator, "_try_get_data", _look_at_processes):
            yield
    except RuntimeError as error:
        text = str(error)
        for kind in (LoaderError, SharedMemoryError):
            if "in DataLoader worker" in text and f"{kind.__name__}: " in text:
                raise kind(text.rpartition(f"{kind.__name__}: ")[2].strip()) from None
        if "DataLoader" in text and _LOST.search(text):
            raise SharedMemoryError.during(
                "a process that loads batches was killed (out of memory?) or does not answer",
                text.strip().splitlines()[-1],
            ) from None
        raise


def _look_at_processes(self: Any, timeout: float | int = _INTERVAL) -> tuple[bool, Any]:
    """Wait for a batch, and look in between whether the processes live.

    With a time-out torch relies on the signal of a process that ends, which is lost if it ends
    while the others are started.
    """
    end = time.monotonic() + timeout
    while True:
        seconds = end - time.monotonic()
        success, batch = _TRY(self, timeout=max(0.0, min(_INTERVAL, seconds)))
        if success or seconds <= _INTERVAL:
            return success, batch


@contextmanager
def one_sentence() -> Iterator[None]:
    """In a process that loads batches: say what failed without where, which torch would add."""
    try:
        yield
    except LoaderError:
        raise
    except (WsssError, OSError, MemoryError) as error:
        if get_worker_info() is None:
            raise
        raise LoaderError(str(error) or "out of memory; use fewer workers") from None


@FUNCTIONS.register_module()  # type: ignore[untyped-decorator]
def shared_collate(samples: Sequence[dict[str, Any]]) -> Any:
    """A batch in shared memory.

    torch would move it there later, in a thread whose failure nobody sees.

    Raises:
        SharedMemoryError: there is no room.
    """
    try:
        for sample in samples:
            sample["inputs"].share_memory_()
            sample["data_samples"].gt_sem_seg.data.share_memory_()
    except (RuntimeError, OSError) as error:
        raise SharedMemoryError.during("a batch could not be placed there", error) from None
    return pseudo_collate(samples)
