"""What each job of a workflow costs, seen from outside while it runs."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from benchmarks.timing import peak_memory
from wsss.artifacts.progress import progress_lines
from wsss.pipeline.stage_log import failure_message, read_log

SECONDS_BETWEEN_SAMPLES = 0.2


@dataclass(frozen=True)
class Loop:
    """A loop that a stage reported as finished (`wsss.artifacts.progress.track`)."""

    description: str
    count: int
    seconds: float
    """Of the processor, from its start to its end."""
    memory: int
    """When it started, bytes."""


@dataclass(frozen=True)
class Job:
    """A finished job of a stage."""

    log: str
    """Path of its log, below the project."""
    wall: float
    """Seconds of the clock."""
    seconds: float
    """Of the processor, of all its processes."""
    peak: int
    """Largest resident memory of its processes together, bytes."""
    loops: tuple[Loop, ...]


@dataclass
class _Watched:
    """A job that is running."""

    times: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    peak: int = 0
    by_process: dict[int, float] = field(default_factory=dict)
    ends: list[float] = field(default_factory=list)
    """When each loop of the log was seen to be finished."""


class JobWatch(threading.Thread):
    """Sample the processes below the workflow engine, by the log that they write to.

    Args:
        engine: number of the engine's process.
        project: folder in which it runs.
    """

    def __init__(self, engine: int, project: Path) -> None:
        super().__init__(daemon=True)
        self._engine, self._project = psutil.Process(engine), project
        self._watched: dict[Path, _Watched] = {}
        self._stopped = threading.Event()

    def run(self) -> None:
        """Sample until `jobs` is called."""
        while not self._stopped.wait(SECONDS_BETWEEN_SAMPLES):
            self._sample()

    def jobs(self) -> list[Job]:
        """Stop, and give the jobs that did not fail."""
        self._stopped.set()
        self.join()
        return [
            self._job(log, watched)
            for log, watched in self._watched.items()
            if not failure_message(read_log(log))
        ]

    def _sample(self) -> None:
        now = time.monotonic()
        memory: dict[Path, int] = {}
        with suppress(psutil.Error):
            for process in self._engine.children(recursive=True):
                with suppress(psutil.Error, OSError):
                    log = Path(os.readlink(f"/proc/{process.pid}/fd/2"))
                    if log.suffix != ".log" or not log.is_relative_to(self._project / "results"):
                        continue
                    times, size = process.cpu_times(), process.memory_info().rss
                    watched = self._watched.setdefault(log, _Watched())
                    watched.by_process[process.pid] = times.user + times.system
                    watched.peak = max(watched.peak, peak_memory(process.pid))
                    memory[log] = memory.get(log, 0) + size
        for log, size in memory.items():
            watched = self._watched[log]
            watched.times.append(now)
            watched.seconds.append(sum(watched.by_process.values()))
            watched.memory.append(size)
            watched.peak = max(watched.peak, size)
            finished = len(_finished_loops(log))
            watched.ends += [now] * (finished - len(watched.ends))

    def _job(self, log: Path, watched: _Watched) -> Job:
        times, loops = watched.times, []
        finished = _finished_loops(log)
        ends = watched.ends + [times[-1]] * (len(finished) - len(watched.ends))
        for (description, count, elapsed), end in zip(finished, ends, strict=True):
            start, stop = np.interp([end - elapsed, end], times, watched.seconds)
            memory = int(np.interp(end - elapsed, times, watched.memory))
            loops.append(Loop(description, count, float(stop - start), memory))
        return Job(
            log=str(log.relative_to(self._project)),
            wall=times[-1] - times[0],
            seconds=watched.seconds[-1],
            peak=watched.peak,
            loops=tuple(loops),
        )


def _finished_loops(log: Path) -> list[tuple[str, int, float]]:
    """Description, number of items and seconds of each."""
    return [
        (line.description, line.total, line.seconds)
        for line in progress_lines(read_log(log))
        if line.done == line.total
    ]
