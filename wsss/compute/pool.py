"""Run a function over images in processes: the CRF holds the interpreter lock."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

from wsss.compute.shared_memory import SharedMemoryError
from wsss.errors import WsssError

Task = TypeVar("Task")
Result = TypeVar("Result")
_AHEAD = 3  # tasks waiting for each process; bounds the memory


class WorkerError(WsssError, RuntimeError):
    """Work on an image failed, or its process died; the message names the image."""


class WorkerPool:
    """Processes that work on images; use as a context manager, once per job.

    They are started when first needed, and end when this process does, however it ends. With one
    worker everything happens in this process.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def map(
        self, function: Callable[[Task], Result], tasks: Iterable[tuple[str, Task]]
    ) -> Iterator[tuple[str, Result]]:
        """Apply ``function`` to each task.

        Args:
            function: a module's function, or a partial of one. Its module is imported in each
                process, so it should not import torch (3 s, and the memory).
            tasks: name of the image and what the function takes; read a few ahead of the results.

        Yields:
            Name and result, in the order of the tasks.

        Raises:
            WorkerError: the function failed, or a process was killed.
            SharedMemoryError: there is no room for the semaphores of several processes.
        """
        if self._workers <= 1:
            for name, task in tasks:
                yield name, _call(function, name, task)
            return
        waiting: deque[tuple[str, Future[Result]]] = deque()
        with self._deaths(waiting):
            for name, task in tasks:
                waiting.append((name, self._submit(function, name, task)))
                if len(waiting) >= _AHEAD * self._workers:
                    yield _first(waiting)
            while waiting:
                yield _first(waiting)

    def start(
        self, function: Callable[[Task], Result], tasks: Iterable[tuple[str, Task]]
    ) -> Iterator[tuple[str, Result]]:
        """As `map`, but all tasks are handed out now, so that this process goes on meanwhile."""
        if self._workers <= 1:
            return self.map(function, tasks)
        waiting: deque[tuple[str, Future[Result]]] = deque()
        with self._deaths(waiting):
            waiting.extend((name, self._submit(function, name, task)) for name, task in tasks)
        return self._results(waiting)

    def _results(self, waiting: deque[tuple[str, Future[Result]]]) -> Iterator[tuple[str, Result]]:
        with self._deaths(waiting):
            while waiting:
                yield _first(waiting)

    def _submit(self, function: Callable[[Task], Result], name: str, task: Task) -> Future[Result]:
        if self._pool is None:
            self._pool = process_pool(self._workers)
        packed = pickle.dumps((function, task))
        return self._pool.submit(_call, _unpack_and_call, name, packed)

    @contextmanager
    def _deaths(self, waiting: deque[tuple[str, Future[Result]]]) -> Iterator[None]:
        """Name the images that were under way when a process died."""
        try:
            yield
        except BrokenProcessPool:
            names = ", ".join(repr(name) for name, _ in list(waiting)[: self._workers + 1])
            raise WorkerError(
                f"a worker process died while {names or 'starting'} was under way; it was killed "
                "(out of memory?) or crashed: use fewer workers (compute.workers), or more memory"
            ) from None

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def as_completed_ahead(
    work: Callable[[Task], Result], tasks: Iterable[Task], *, workers: int, description: str
) -> Iterator[Result]:
    """Results of processes as they come, with few waiting: memory does not grow with the data set.

    Args:
        description: what they do, for the message.

    Raises:
        WorkerError: a process was killed.
    """
    pending: set[Future[Result]] = set()
    try:
        with process_pool(workers) as pool:
            for task in tasks:
                if len(pending) == 2 * workers:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
                pending.add(pool.submit(work, task))
            yield from (future.result() for future in as_completed(pending))
    except BrokenProcessPool:
        raise WorkerError(
            f"{description}: a worker process was killed (out of memory?) or crashed; use fewer "
            "workers (compute.workers) or more memory"
        ) from None


def _first(waiting: deque[tuple[str, Future[Any]]]) -> tuple[str, Any]:
    name, future = waiting[0]
    result = future.result()
    waiting.popleft()  # only now: the error message names what is still waiting
    return name, result


def _call(function: Callable[[Task], Result], name: str, task: Task) -> Result:
    try:
        return function(task)
    except MemoryError:
        raise WorkerError(f"{name!r}: out of memory; use fewer workers") from None
    except Exception as error:  # with its text, since not every exception travels
        reason = str(error) or repr(error)
        message = reason if repr(name) in reason else f"{name!r}: {reason}"
        raise WorkerError(message) from error


def _unpack_and_call(packed: bytes) -> Any:
    """Here the task's modules are imported; a failure does not end the process."""
    function, task = pickle.loads(packed)
    return function(task)


def process_pool(workers: int) -> ProcessPoolExecutor:
    """A pool of spawned processes, each on one thread of OpenCV.

    Spawned, not forked: this process may hold threads of OpenCV, HDF5 or torch.

    Args:
        workers: number of processes; they are started when first needed.

    Raises:
        SharedMemoryError: there is no room for their semaphores.
    """
    context = multiprocessing.get_context("spawn")
    try:
        return ProcessPoolExecutor(
            workers, mp_context=context, initializer=_start, initargs=(_CALLED_FIRST,)
        )
    except OSError as error:
        what = f"the semaphores of {workers} worker processes cannot be made there"
        raise SharedMemoryError.during(what, error.strerror) from None


_CALLED_FIRST: list[Callable[[], None]] = []


def call_first(function: Callable[[], None]) -> None:
    """Let each process that is started from now on call a module's function before its tasks."""
    _CALLED_FIRST.append(function)


def _start(called_first: list[Callable[[], None]]) -> None:
    for function in called_first:
        function()
    import cv2  # here, so that whoever only makes a pool does not load it

    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()  # returns when the parent is gone, however it went
        os._exit(1)
