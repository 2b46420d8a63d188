"""Count in processes and add up: integer sums, so the order of the parts changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from wsss.artifacts.progress import track
from wsss.compute.pool import as_completed_ahead
from wsss.score.metrics.confusion import Confusion
from wsss.score.metrics.threshold_sweep import Sweep

Counts = dict[str, Confusion | Sweep]
"""Named counts of a part of the images."""
Part = TypeVar("Part")
_PARTS_WORTH_A_POOL = 4


def count_in_parallel(
    count: Callable[[Part], Counts], parts: Sequence[Part], *, workers: int, description: str
) -> Counts:
    """Apply ``count`` to each part and merge the results.

    Args:
        count: a module's function (or a partial of one), so that it can be pickled.
        parts: what to count; must be picklable.
        workers: processes; with 1, or few parts, this process counts.
        description: what is being counted, for the progress bar.
    """
    if workers <= 1 or len(parts) < _PARTS_WORTH_A_POOL:
        return _merge(track(map(count, parts), total=len(parts), description=description))
    results = as_completed_ahead(count, parts, workers=workers, description=description)
    return _merge(track(results, total=len(parts), description=description))


def _merge(results: Iterator[Counts]) -> Counts:
    total: Counts = {}
    for counts in results:
        for name, part in counts.items():
            if name in total:
                total[name].merge(part)  # type: ignore[arg-type]  # one name, one type
            else:
                total[name] = part
    return total
