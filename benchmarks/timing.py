"""Seconds of alternatives in interleaved rounds, and the memory of this process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

Times = dict[str, list[float]]
Tasks = Mapping[str, Callable[[], object]]


def interleaved(
    tasks: Tasks,
    rounds: int,
    *,
    warm_up: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> Times:
    """Seconds of each task in each round.

    Every round runs all tasks, so that a busy machine slows all of them alike.

    Args:
        tasks: by name.
        rounds: that are measured.
        warm_up: run each task once before.
        clock: what is read before and after; `time.process_time` leaves out other processes.
    """
    times: Times = {name: [] for name in tasks}
    for index in range(-1 if warm_up else 0, rounds):
        for name, task in tasks.items():
            _wait()
            start = clock()
            task()
            _wait()
            if index >= 0:
                times[name].append(clock() - start)
    return times


def ratios(numerators: list[float], denominators: list[float]) -> list[float]:
    """Of each round."""
    return [a / b for a, b in zip(numerators, denominators, strict=True)]


def median_ratio(numerators: list[float], denominators: list[float]) -> float:
    """Median over the rounds."""
    return statistics.median(ratios(numerators, denominators))


def peak_memory(process: int | None = None) -> int:
    """Largest resident size of a process so far (default: this one), bytes (Linux).

    Raises:
        ProcessLookupError: the process has ended, though its parent has not asked for it yet.
        OSError: there is no such process.
    """
    status = Path(f"/proc/{process or 'self'}/status").read_text(encoding="utf-8")
    lines = [line for line in status.splitlines() if line.startswith("VmHWM")]
    if not lines:
        raise ProcessLookupError(f"process {process} has ended")
    return 1024 * int(lines[0].split()[1])


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
