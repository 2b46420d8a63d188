"""The process pool: order, bounded memory, and what happens when something goes wrong."""

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.machines import no_new_bytes
from wsss.artifacts.atomic import atomic_path
from wsss.artifacts.errors import WriteError
from wsss.compute.pool import WorkerError, WorkerPool, as_completed_ahead
from wsss.compute.shared_memory import SharedMemoryError


def double(value: int) -> int:
    return 2 * value


def touch(path: Path) -> str:
    path.touch()
    return path.name


def process(_: int) -> int:
    return os.getpid()


def fail_on(value: int, *, bad: int) -> int:
    if value == bad:
        raise ValueError("the photo is upside down")
    return value


class Stubborn(Exception):  # noqa: N818
    """Cannot be rebuilt from its pickle."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__("stubborn")


def raise_stubborn(value: int) -> int:
    raise Stubborn(value, value)


def die(value: int) -> int:
    if value == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def tasks(count: int) -> list[tuple[str, int]]:
    return [(f"image {index}", index) for index in range(count)]


@pytest.mark.parametrize("workers", [1, 2])
def test_started_tasks_run_meanwhile(workers: int, tmp_path: Path) -> None:
    """With processes of their own they are done before the first result is asked for."""
    path = tmp_path / "touched"
    with WorkerPool(workers) as pool:
        results = pool.start(touch, [("a", path), ("b", path)])
        until = time.monotonic() + 60
        while workers > 1 and not path.exists() and time.monotonic() < until:
            time.sleep(0.01)
        assert path.exists() == (workers > 1)
        assert list(results) == [("a", "touched"), ("b", "touched")]
        with pytest.raises(WorkerError, match="'image 2': the photo is upside down"):
            list(pool.start(functools.partial(fail_on, bad=2), tasks(4)))


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers: int) -> None:
    with WorkerPool(workers) as pool:
        for _ in range(2):  # the pool serves several rounds
            results = list(pool.map(double, tasks(20)))
            assert results == [(f"image {index}", 2 * index) for index in range(20)]
        assert list(pool.map(double, [])) == []


def test_one_worker_is_this_process() -> None:
    with WorkerPool(1) as pool:
        assert dict(pool.map(process, tasks(2))) == {f"image {n}": os.getpid() for n in range(2)}


def test_tasks_are_read_a_few_ahead_only() -> None:
    read = 0

    def counted() -> Iterator[tuple[str, int]]:
        nonlocal read
        for task in tasks(100):
            read += 1
            yield task

    with WorkerPool(2) as pool:
        for done, _ in enumerate(pool.map(double, counted()), start=1):
            assert read <= done + 6


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_names_the_image(workers: int) -> None:
    with WorkerPool(workers) as pool:
        results = pool.map(functools.partial(fail_on, bad=3), tasks(8))
        assert [next(results)[1] for _ in range(3)] == [0, 1, 2]
        with pytest.raises(WorkerError, match="'image 3': the photo is upside down"):
            next(results)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_that_cannot_be_pickled_is_reported(workers: int) -> None:
    with WorkerPool(workers) as pool, pytest.raises(WorkerError, match="'image 0': stubborn"):
        list(pool.map(raise_stubborn, tasks(1)))


def test_a_killed_process_is_a_clear_error() -> None:
    with WorkerPool(2) as pool, pytest.raises(WorkerError, match=r"'image \d'.*compute\.workers"):
        list(pool.map(die, tasks(4)))


def test_workers_end_with_their_parent() -> None:
    program = (
        "import os, sys; from wsss.compute.pool import WorkerPool\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from test_pool import process\n"
        "if __name__ == '__main__':\n"
        "    pool = WorkerPool(2); print(next(pool.map(process, [('a', 1)] * 6))[1], flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    folder = os.path.dirname(__file__)
    ran = subprocess.run(
        [sys.executable, "-c", program, folder], capture_output=True, text=True, timeout=60
    )  # returns when every holder of the pipe, the workers too, is gone
    assert ran.returncode == -signal.SIGKILL
    assert ran.stdout.strip().isdigit()


@pytest.mark.parametrize("module", ["wsss.labels.pseudo", "wsss.compute.pool", "wsss.masks.make"])
def test_worker_modules_do_not_import_torch(module: str) -> None:
    program = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_large_results_pass() -> None:
    with WorkerPool(2) as pool:
        results = dict(pool.map(np.zeros, [("a", 2_000_000), ("b", 3)]))
    assert results["a"].shape == (2_000_000,)


def test_full_shared_memory_is_no_full_disk(tmp_path: Path) -> None:
    """A semaphore that cannot be made is not about the file that is being written."""

    def write(start: Callable[[], object]) -> None:
        with atomic_path(tmp_path / "a.h5"), no_new_bytes():
            start()

    with pytest.raises(SharedMemoryError, match=r"^/dev/shm .*semaphores.*compute\.workers"):
        write(lambda: list(WorkerPool(2).map(process, tasks(2))))
    with pytest.raises(OSError, match="File too large") as caught:
        write(multiprocessing.get_context("spawn").Lock)  # as a library would
    assert not isinstance(caught.value, WriteError)


def test_a_killed_process_without_order_is_a_clear_error() -> None:
    with pytest.raises(WorkerError, match=r"^drawing: .*compute\.workers"):
        list(as_completed_ahead(os._exit, [1], workers=1, description="drawing"))
