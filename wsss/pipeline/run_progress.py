"""How far a run of the workflow is: its running jobs, by their logs, and the share that is done."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from wsss.artifacts.progress import LoggedProgress, logged_progress
from wsss.pipeline.stage_log import read_log, warnings

_MOST = 0.99
"""Share of a job that counts as done at most before its end."""
_MOST_WITHOUT_STEPS = 0.25
"""The same while its log tells no steps: earlier runs may have had fewer steps, or no queue."""
_MOST_LINES = 8
"""Running jobs that are shown."""
_MOST_WARNINGS = 3
"""Warnings of one kind that are shown."""
_NUMBER = re.compile(r"\d+")
_SHORTEST_TITLE = 12
_TELLS = 0.02
"""Share from which on the time so far says something about the time left."""
_CLOCKS = 1.0
"""Seconds by which the clock of a file server may be behind."""


@dataclass
class _RunningJob:
    title: str
    log: Path | None
    start: float = field(default_factory=lambda: time.monotonic())
    started: float = field(default_factory=lambda: time.time())
    """By the clock of files."""
    progress: LoggedProgress | None = None

    def elapsed(self) -> float:
        return time.monotonic() - self.start

    def read_progress(self) -> None:
        """Take up what the log says since the job started."""
        if self.has_logged():
            assert self.log is not None
            self.progress = logged_progress(self.log) or self.progress

    def has_logged(self) -> bool:
        """Whether the log is of this job; before that it is of an earlier run."""
        with suppress(OSError):
            return self.log is not None and self.log.stat().st_mtime > self.started - _CLOCKS
        return False

    def share(self, expected: float) -> float:
        """How much of it is done; it may take longer than expected."""
        elapsed = self.elapsed()
        if self.progress is None:
            return min(_MOST_WITHOUT_STEPS, elapsed / max(expected, 1e-9))
        return min(_MOST, elapsed / max(expected, elapsed + self.progress.seconds_left, 1e-9))

    def may_take_any_time(self, expected: float) -> bool:
        """Whether neither the log nor an earlier run tells how long it takes."""
        return self.progress is None and 0 < _MOST_WITHOUT_STEPS * expected < self.elapsed()

    def steps_text(self) -> str:
        """``120/450, loss 0.523``; empty where its log has no progress."""
        if self.progress is None:
            return ""
        phase = self.progress.description
        named = "" if phase.lower() in self.title.lower() else f"{phase} "
        note = f", {self.progress.note}" if self.progress.note else ""
        return f"{named}{self.progress.done}/{self.progress.total}{note}"

    def line(self, width: int) -> str:
        """Title and time left; without progress the time so far. A long title is cut."""
        if self.progress is None:
            text = duration_text(self.elapsed())
        else:
            text = f"{self.steps_text()}, {duration_text(self.progress.seconds_left)} left"
        room = max(_SHORTEST_TITLE, width - len(text) - 2)
        title = self.title if len(self.title) <= room else f"{self.title[: room - 1]}…"
        return f"{title}: {text}"


class RunProgress:
    """The jobs of a run.

    Args:
        expected: seconds that each job may take, by its id.
    """

    def __init__(self, expected: Mapping[int, float]) -> None:
        self._expected = dict(expected)
        self._finished: set[int] = set()
        self._running: dict[int, _RunningJob] = {}
        self._warnings: Counter[str] = Counter()
        self._start = time.monotonic()
        self._percent = 0

    @property
    def jobs(self) -> int:
        """Number of jobs that take time."""
        return sum(seconds > 0 for seconds in self._expected.values())

    @property
    def finished(self) -> int:
        """How many of them are finished."""
        return sum(self._expected.get(job, 0) > 0 for job in self._finished)

    def start(self, job: int, title: str, logs: Iterable[str]) -> None:
        """A job starts, perhaps again."""
        log = next(iter(logs), None)
        self._finished.discard(job)
        self._running[job] = _RunningJob(title, Path(log) if log else None)

    def fail(self, job: int) -> None:
        """A job failed."""
        self._running.pop(job, None)

    def warnings(self, job: int) -> list[str]:
        """What a running job warned of so far, a paragraph each that ends with its log.

        Parts of a split warn of the same with other numbers: the first few of a run are given.
        """
        running = self._running.get(job)
        if running is None or running.log is None or not running.has_logged():
            return []
        shown = []
        for text in warnings(read_log(running.log)):
            kind = _NUMBER.sub("", text.partition("\n")[0])
            self._warnings[kind] += 1
            if self._warnings[kind] <= _MOST_WARNINGS:
                shown.append(f"{text}\n  log: {running.log}")
        return shown

    def finish(self, job: int) -> str:
        """A job is finished.

        Returns:
            A line that says so; empty for a job that takes no time.
        """
        self._finished.add(job)
        running = self._running.pop(job, None)
        if running is None or not self._expected.get(job, 1):
            return ""
        running.read_progress()
        steps = running.steps_text()
        done = f"done in {duration_text(running.elapsed())}"
        return self._line(f"{running.title}: {steps + ', ' if steps else ''}{done}")

    def percent(self) -> int:
        """The share of the expected time that is done; it never falls, and 100 is the end."""
        ends = 100 if self.finished == self.jobs else 99
        self._percent = max(self._percent, min(ends, int(100 * self._share())))
        return self._percent

    @property
    def running(self) -> int:
        """Number of jobs that run, or wait in the queue of a cluster."""
        return len(self._running)

    def running_lines(self, width: int = 1000) -> list[str]:
        """A line per running job, with its steps and the time left as its log says.

        Of many, those whose logs have progress come first, and the last line counts the others.
        """
        for running in self._running.values():
            running.read_progress()
        shown = sorted(self._running.values(), key=lambda running: running.progress is None)
        lines = [running.line(width) for running in shown[:_MOST_LINES]]
        return [*lines, f"and {more} more"] if (more := len(shown) - len(lines)) else lines

    def numbered_lines(self) -> list[str]:
        """The same with the percentage in front."""
        return [self._line(line) for line in self.running_lines()]

    def summary(self) -> str:
        """How many jobs are finished, and about how long the others take."""
        share = self._share()
        text = f"{self.finished} of {self.jobs} jobs"
        unknown = any(
            running.may_take_any_time(self._expected.get(job, 0))
            for job, running in self._running.items()
        )
        if unknown or not _TELLS <= share < 1:
            return text
        left = (time.monotonic() - self._start) * (1 - share) / share
        return f"{text}, about {duration_text(left)} left"

    def _share(self) -> float:
        """Done share of the expected time of all jobs."""
        total = sum(self._expected.values())
        done = sum(self._expected.get(job, 0) for job in self._finished)
        for job, running in self._running.items():
            expected = self._expected.get(job, 0)
            done += expected * running.share(expected)
        return done / total if total else 0.0

    def _line(self, text: str) -> str:
        return f"[{self.percent():3d} %] {text}"


def duration_text(seconds: float) -> str:
    """``45 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
