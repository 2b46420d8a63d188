"""Progress of long work: a bar with time left on a terminal, lines in a log elsewhere."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")
_BETWEEN_LINES = (1.0, 15.0)
"""Seconds between two lines of a log, at least and at most; in between, a fiftieth of the time so
far, so that a log of days has no more lines than one every 15 seconds."""
_TAIL = 8192  # bytes of a log in which its last line of progress is looked for
_LINE = re.compile(
    r"^(?P<description>.+): (?P<done>\d+)/(?P<total>\d+), (?:(?P<note>.+), )?"
    r"(?P<seconds>[\d.]+) s, (?P<left>\d+) s left$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class LoggedProgress:
    """How far some work is, as a line of a log says."""

    description: str
    done: int
    total: int
    note: str
    """Such as the loss of a training; may be empty."""
    seconds: float
    """Since its start."""
    seconds_left: int

    def __str__(self) -> str:
        note = f"{self.note}, " if self.note else ""
        return (
            f"{self.description}: {self.done}/{self.total}, {note}{self.seconds:.1f} s, "
            f"{self.seconds_left} s left"
        )


def track(
    items: Iterable[T],
    *,
    total: int,
    description: str,
    note: Callable[[], str] | None = None,
) -> Iterator[T]:
    """Iterate over ``items`` and show how far it is and how long it will take, on standard error.

    Args:
        total: how many there will be.
        description: what is being done, e.g. ``CAMs``.
        note: called after an item when progress is shown, for a few words such as ``loss 0.123``.
    """
    if sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task(description, total=total, note="")
            for item in items:
                yield item
                progress.update(task, advance=1, note=note() if note else "")
    else:
        yield from _lines(items, total, description, note)


def logged_progress(log: Path) -> LoggedProgress | None:
    """The last line of progress at the end of a log; None where there is none."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return None
    lines = progress_lines(text)
    return lines[-1] if lines else None


def progress_lines(text: str) -> list[LoggedProgress]:
    """All lines of progress in the text of a log."""
    return [
        LoggedProgress(
            description=line["description"],
            done=int(line["done"]),
            total=int(line["total"]),
            note=line["note"] or "",
            seconds=float(line["seconds"]),
            seconds_left=int(line["left"]),
        )
        for line in _LINE.finditer(text)
    ]


def _lines(
    items: Iterable[T], total: int, description: str, note: Callable[[], str] | None
) -> Iterator[T]:
    shortest, longest = _BETWEEN_LINES
    start = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if done == total or now - last >= min(longest, max(shortest, (now - start) / 50)):
            last = now
            seconds_left = (now - start) / done * max(total - done, 0)
            text = note() if note else ""
            line = LoggedProgress(description, done, total, text, now - start, round(seconds_left))
            print(line, file=sys.stderr, flush=True)
