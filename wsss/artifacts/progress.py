"""Progress of long work: a bar with time left on a terminal, an occasional line in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
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
_SECONDS_BETWEEN_LINES = 15.0


def track(items: Iterable[T], *, total: int, description: str) -> Iterator[T]:
    """Iterate over ``items`` and show how far it is and how long it will take, on standard error.

    Args:
        items: what to iterate over.
        total: how many there will be.
        description: what is being done, e.g. ``CAMs``.
    """
    if sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as progress:
            yield from progress.track(items, total=total, description=description)
    else:
        yield from _lines(items, total, description)


def _lines(items: Iterable[T], total: int, description: str) -> Iterator[T]:
    start = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_LINES or done == total:
            last = now
            seconds_left = (now - start) / done * max(total - done, 0)
            print(
                f"{description}: {done}/{total}, {now - start:.1f} s, {seconds_left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )
