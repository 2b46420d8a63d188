"""How long the jobs of a run may take: as long as the last time, or as on the embedded demo."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_ON_THE_DEMO = {
    "demo_data": 8.0,
    "cams": 8.0,
    "seeds": 6.0,
    "refine_train": 42.0,
    "refine_apply": 8.0,
    "refine_predict": 9.0,
    "refine_predict_crf": 6.0,
    "refine_labels": 60.0,
    "masks": 6.0,
    "retrain": 165.0,
    "predict": 12.0,
    "predict_crf": 6.0,
    "page": 8.0,
    "gallery": 8.0,
}
"""Seconds of a job by its rule, on two cores."""
_OTHERS = 4.0


class PlannedJob(NamedTuple):
    """A job that is to run."""

    id: int
    rule: str
    benchmark: str | None
    """Where the engine records how long it took; an earlier run may have done so."""


def expected_seconds(jobs: Iterable[PlannedJob]) -> dict[int, float]:
    """How long each job may take.

    A job takes as long as an earlier run recorded. One without a record takes the mean of its
    rule; a rule without any takes its time on the demo, scaled as the recorded ones are.

    Args:
        jobs: those that are to run.

    Returns:
        Seconds by the id of the job. Jobs without a benchmark do nothing, and take no time.
    """
    working = [job for job in jobs if job.benchmark]
    recorded = {
        job.id: seconds
        for job in working
        if (seconds := _recorded_seconds(str(job.benchmark))) is not None
    }
    by_rule: dict[str, list[float]] = {}
    on_the_demo = 0.0
    for job in working:
        if job.id in recorded:
            by_rule.setdefault(job.rule, []).append(recorded[job.id])
            on_the_demo += _ON_THE_DEMO.get(job.rule, _OTHERS)
    scale = sum(recorded.values()) / on_the_demo if recorded else 1.0
    return dict.fromkeys((job.id for job in jobs), 0.0) | {
        job.id: recorded.get(job.id) or _typical(job.rule, by_rule, scale) for job in working
    }


def _typical(rule: str, by_rule: dict[str, list[float]], scale: float) -> float:
    if rule in by_rule:
        return sum(by_rule[rule]) / len(by_rule[rule])
    return scale * _ON_THE_DEMO.get(rule, _OTHERS)


def _recorded_seconds(benchmark: str) -> float | None:
    """What the engine wrote after the last run of a job; None where it wrote nothing."""
    try:
        with Path(benchmark).open(encoding="utf-8", newline="") as stream:
            return float(next(csv.DictReader(stream, delimiter="\t"))["s"])
    except (OSError, StopIteration, KeyError, TypeError, ValueError):
        return None
