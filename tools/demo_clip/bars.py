"""Progress bars of the pretraining, with the time left."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed
from rich.progress import TimeRemainingColumn as Remaining

from tools.demo_clip.stream import Progress as Callback


@contextmanager
def bars() -> Iterator[Callback]:
    """Yield a callback for `tools.demo_clip.pretrain.pretrain` that draws one bar a phase."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Elapsed(),
        TextColumn("left"),
        Remaining(),
        TextColumn("{task.fields[loss]}"),
    )
    with Progress(*columns) as shown:
        tasks: dict[str, TaskID] = {}

        def advance(phase: str, done: int, total: int, loss: float) -> None:
            if phase not in tasks:
                tasks[phase] = shown.add_task(phase, total=total, loss="")
            text = "" if math.isnan(loss) else f"loss {loss:.2f}"
            shown.update(tasks[phase], completed=done, loss=text)

        yield advance
