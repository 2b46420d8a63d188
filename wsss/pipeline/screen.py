"""The screen of a run: the running jobs with their progress, instead of the engine's own lines.

The engine logs through Python's `logging`; what it logs still goes to its file in
``.snakemake/log``. On a terminal, lines at the bottom show the running jobs and the share that is
done. Elsewhere plain lines appear now and then. What a job warned of in its log follows when the
job is finished. The engine's own warnings and errors look as they always did.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from wsss.pipeline.run_progress import RunProgress

_TICK = 0.5
"""Seconds between two looks at the logs, at least."""
_PER_JOB = 0.01
"""Seconds between them per running job, at least."""
_FIRST_LINE, _BETWEEN_LINES = 5.0, 15.0
"""Seconds before the first line of progress, and between two, where there is no terminal."""
_NOISE_EVENTS = {
    "workflow_started", "run_info", "shellcmd", "job_info", "group_info", "job_started",
    "job_finished", "resources_info", "progress",
}  # fmt: skip
_NOISE_STARTS = (
    "Building DAG of jobs",
    "Using shell",
    "Conda environments: ignored",
    "Singularity containers: ignored",
    "Group jobs: inactive",
    "Select jobs to execute",
    "Execute ",
    "Job rate limit reached",
    "Touching output file",
    "Removing temporary output",
    "Assuming unrestricted shared filesystem usage",
)
"""What the engine says of its own work, by the event or the first words."""


class Screen(logging.Handler):
    """Shows the jobs of a run; see `show_run`.

    Args:
        handler: the engine's own handler for the screen.
        expected: seconds that each job of the run may take; asked for once, before the first job.
        names_runs: add the name of the run to each job.
        shows_finished: write a line per finished job.
    """

    def __init__(
        self,
        handler: logging.StreamHandler[Any],
        expected: Callable[[], Mapping[int, float]],
        *,
        names_runs: bool,
        shows_finished: bool,
    ) -> None:
        super().__init__()
        self._expected, self._names_runs, self._shows_finished = (
            expected, names_runs, shows_finished,
        )  # fmt: skip
        self._console = Console(file=handler.stream, no_color=getattr(handler, "nocolor", None))
        self._has_terminal = handler.stream.isatty() and not self._console.is_dumb_terminal
        self._progress: RunProgress | None = None
        self._live: Live | None = None
        self._quiet_until = 0.0
        self._stopped = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        handler.addFilter(self._passes)

    def emit(self, record: logging.LogRecord) -> None:
        """Take up what the engine says of its jobs; a fault here does not stop it."""
        try:
            self._take_up(record)
        except Exception:
            self.handleError(record)

    def _take_up(self, record: logging.LogRecord) -> None:
        event = _event(record)
        if event == "run_info" and self._progress is None:
            self._progress = RunProgress(self._expected())
            jobs = self._progress.jobs
            self._write(f"{jobs} {'job' if jobs == 1 else 'jobs'} to run")
            self._ticker.start()
        if self._progress is None:
            return
        if event == "job_info":
            self._progress.start(record.jobid, self._title(record), record.log)  # type: ignore[attr-defined]
        elif event == "job_error":
            self._progress.fail(record.jobid)  # type: ignore[attr-defined]
        elif event == "job_finished":
            for warning in self._progress.warnings(record.job_id):  # type: ignore[attr-defined]
                self._write(warning, "yellow")
            line = self._progress.finish(record.job_id)  # type: ignore[attr-defined]
            if line and self._shows_finished:
                self._write(line)

    def close(self) -> None:
        """Leave the screen to others."""
        self._stopped.set()
        with self._lock_of_handler():
            self._clear()
        super().close()

    def _tick(self) -> None:
        assert self._progress is not None
        due = time.monotonic() + _FIRST_LINE
        # A cluster may run hundreds of jobs, whose logs lie on a file server.
        while not self._stopped.wait(max(_TICK, _PER_JOB * self._progress.running)):
            with self._lock_of_handler(), suppress(OSError):  # a terminal that was closed
                now = time.monotonic()
                if self._stopped.is_set():
                    return
                if self._has_terminal:
                    if now >= self._quiet_until:
                        self._draw(self._progress)
                elif now >= due:
                    due = now + _BETWEEN_LINES
                    for line in self._progress.numbered_lines():
                        self._write(line)

    def _draw(self, progress: RunProgress) -> None:
        if not progress.running:
            self._clear()
            return
        width, height = self._console.size
        lines = [Text(f"  {line}", no_wrap=True, overflow="ellipsis", style="cyan")
                 for line in progress.running_lines(width - 3)]  # fmt: skip
        overall = Table.grid(padding=(0, 1))
        overall.add_row(
            ProgressBar(total=100, completed=progress.percent(), width=20),
            Text(f"{progress.percent():3d} %  {progress.summary()}", no_wrap=True),
        )
        shown = Group(*lines[: max(1, height - 2)], overall)
        if self._live is None:
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
            self._console.show_cursor(True)  # a process that is killed cannot bring it back
        self._live.update(shown, refresh=True)

    def _clear(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _write(self, line: str, style: str = "") -> None:
        self._clear()
        self._console.print(Text(line, style=style), soft_wrap=True)

    def _passes(self, record: logging.LogRecord) -> bool:
        """Keep the engine's own lines from the screen, and make room for all others."""
        if record.levelno < logging.WARNING and (
            _event(record) in _NOISE_EVENTS
            or (not _event(record) and record.getMessage().startswith(_NOISE_STARTS))
        ):
            return False
        with self._lock_of_handler():
            self._clear()
            self._quiet_until = time.monotonic() + _TICK
        return True

    def _title(self, record: logging.LogRecord) -> str:
        title = record.rule_msg or record.rule_name  # type: ignore[attr-defined]
        run = record.wildcards.get("run") if self._names_runs else None  # type: ignore[attr-defined]
        return f"{title} ({run})" if run else str(title)

    def _lock_of_handler(self) -> threading.RLock:
        assert self.lock is not None
        return self.lock


def show_run(
    logger: logging.Logger,
    expected: Callable[[], Mapping[int, float]],
    *,
    names_runs: bool,
    shows_progress: bool,
    shows_finished: bool,
) -> None:
    """Show the jobs of a run on the engine's screen, without the engine's lines on its own work.

    Where the engine has no handler of its own for the screen, as with a logger plugin, nothing
    changes.

    Args:
        expected: see `Screen`.
        names_runs: see `Screen`.
        shows_progress: whether the jobs are shown.
        shows_finished: see `Screen`.
    """
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream in (
            sys.stderr,
            sys.stdout,
        ):
            screen = Screen(handler, expected, names_runs=names_runs, shows_finished=shows_finished)
            if shows_progress:
                logger.addHandler(screen)
            return


def _event(record: logging.LogRecord) -> str:
    return str(getattr(record, "event", None) or "")
