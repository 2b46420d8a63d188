"""Mean and standard deviation over runs that differ in nothing but their seed."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from wsss.artifacts.digest import digest_json
from wsss.score.record import Record


@dataclass(frozen=True)
class Spread:
    """Of one number over several seeds."""

    mean: float
    deviation: float | None
    """Sample standard deviation (n - 1); None of a single value."""
    seeds: int


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values to take the mean of")
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.mean(values), deviation, len(values))


def mean_text(values: Sequence[float], sign: str = "") -> str:
    """Shares as percent: ``54.8 ± 0.3``; of a single value ``54.8``.

    Args:
        values: shares in [0, 1], or differences of such.
        sign: ``+`` writes the sign of a positive mean as well.
    """
    found = spread(values)
    deviation = "" if found.deviation is None else f" ± {100 * found.deviation:.1f}"
    return f"{100 * found.mean:{sign}.1f}{deviation}"


def without_seed(label: str) -> str:
    """A run's label without the part that names its seed: ``prompts-8_seed-1`` → ``prompts-8``."""
    bare, found = re.subn(r"(?<![^._/])seed-\d+(_|$)", "", label)
    return bare.rstrip("._/") if found else label


def made_alike(records: Sequence[Record]) -> bool:
    """Whether records differ in the seed alone, as far as they tell.

    The sections that scoring reads, what was scored, how, and on which images and truth must agree,
    and each must have a seed of its own.
    """
    kinds = {
        digest_json(
            [
                record.provenance.config,
                *(record.row, record.chain, record.split, record.variant, record.truth),
                *(record.images, record.crf, record.scales, record.flip),
                record.background and record.background.rule,
            ]
        )
        for record in records
    }
    seeds = [record.seed for record in records]
    return len(kinds) == 1 and len(set(seeds)) == len(seeds)
