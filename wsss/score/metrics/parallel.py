"""Count in processes and add up: integer sums, so the order of the parts changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from wsss.artifacts.progress import track
from wsss.compute.pool import process_pool
from wsss.score.metrics.confusion import Confusion
from wsss.score.metrics.threshold_sweep import Sweep

Counts = dict[str, Confusion | Sweep]
"""Named counts of a part of the images."""
Part = TypeVar("Part")
Result = TypeVar("Result")
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
    with process_pool(workers) as pool:
        results = as_completed_ahead(pool, count, parts, ahead=2 * workers)
        try:
            return _merge(track(results, total=len(parts), description=description))
        except BrokenProcessPool:
            raise RuntimeError(
                f"{description}: a worker process was killed (out of memory?) or crashed; "
                "use fewer workers (compute.workers) or more memory"
            ) from None


def as_completed_ahead(
    pool: ProcessPoolExecutor, work: Callable[[Part], Result], parts: Iterable[Part], *, ahead: int
) -> Iterator[Result]:
    """Results as they come, with few waiting, so that memory does not grow with the data set."""
    pending: set[Future[Result]] = set()
    for part in parts:
        if len(pending) == ahead:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
        pending.add(pool.submit(work, part))
    yield from (future.result() for future in as_completed(pending))


def _merge(results: Iterator[Counts]) -> Counts:
    total: Counts = {}
    for counts in results:
        for name, part in counts.items():
            if name in total:
                total[name].merge(part)  # type: ignore[arg-type]  # one name, one type
            else:
                total[name] = part
    return total
