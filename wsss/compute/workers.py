"""Processes that end with the process that started them, however that ended."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor


def process_pool(workers: int) -> ProcessPoolExecutor:
    """A pool of spawned processes, each on one thread of OpenCV.

    Spawned, not forked: this process may hold threads of OpenCV, HDF5 or torch.

    Args:
        workers: number of processes; they are started when first needed.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_start)


def _start() -> None:
    import cv2  # here, so that whoever only makes a pool does not load it

    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()  # returns when the parent is gone, however it went
        os._exit(1)
