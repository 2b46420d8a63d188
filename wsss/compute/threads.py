"""Parallel work on a CPU whose results do not depend on how many threads share it.

Matrix products may be summed in another order when another number of threads, or of rows, works on
them. So on the CPU the unit of work is one image (or one prompt) on one thread, and cores are kept
busy by several units at once. A result is then a function of its unit alone, whatever the number of
threads, the batch size, the order, or the shard that the unit came in. A training, whose steps
follow each other, has a number of threads that the configuration says.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_threads() -> int:
    """Threads this process may use: torch's setting (``OMP_NUM_THREADS``), at most its cores."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, min(torch.get_num_threads(), cores))


@contextmanager
def fixed_threads(count: int) -> Iterator[None]:
    """Let every torch operation inside the block use this many threads, whatever the cores.

    Args:
        count: of threads; ``OMP_NUM_THREADS`` and the workflow's ``--cores`` have no say in it.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def one_thread_each() -> Iterator[int]:
    """Let every torch operation inside the block use one thread.

    Yields:
        How many threads were available before: the number of units to work on at once.
    """
    threads = available_threads()
    with fixed_threads(1):
        yield threads


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int, ahead: int = 2
) -> Iterator[Result]:
    """Apply ``function`` in a pool of threads; results come in the order of ``items``.

    Each of them uses one thread for torch's operations, and computes in the caller's precision.

    Args:
        function: releases the GIL for most of its time (torch, Pillow and NumPy do).
        items: consumed only ``threads + ahead`` items ahead of the results.
        ahead: finished results that may wait, which bounds the memory held.

    Yields:
        The results. An exception of ``function`` is raised in the place of its result.
    """
    # torch keeps its thread count per calling thread, so each worker has to be told. One, because
    # a second team of threads would slow every operation of the caller down (4x was measured).
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(copy_context().run, function, item))
            if len(waiting) >= threads + ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
