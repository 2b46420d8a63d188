"""Mean, standard deviation and interval over runs that differ in nothing but their seed."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wsss.artifacts.digest import digest_json
from wsss.artifacts.provenance import Provenance
from wsss.score.image_counts_file import Scored, read_image_counts
from wsss.score.metrics.bootstrap import Interval, seeds_interval
from wsss.score.record import Record

_RESULTS = frozenset(
    {
        *("iou", "precision_by_class", "recall_by_class", "miou", "miou_low", "miou_high"),
        *("image_counts", "precision", "recall", "pixel_accuracy", "coverage"),
        *("coverage_accuracy", "report_mean", "confusion", "boundary_iou", "boundary_miou"),
        *("false_positive", "false_negative"),
        *("false_positive_by_class", "false_negative_by_class"),
        *("miou_by_threshold", "foreground_by_score"),
    }
)
_LABELS = frozenset({"run", "seed", "commit"})
"""They name a run; what the commit changed is in the digest of the code."""
_TRAINED = frozenset({"refiner", "segmenter"})
"""Weights that a run trains, whose digests follow from its seed."""


@dataclass(frozen=True)
class SeedStatistics:
    """Of one number over several seeds."""

    mean: float
    std: float | None
    """Sample standard deviation (n - 1); None of a single value."""
    seeds: int


def seed_statistics(values: Sequence[float]) -> SeedStatistics:
    """Mean and sample standard deviation.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values to take the mean of")
    std = statistics.stdev(values) if len(values) > 1 else None
    return SeedStatistics(statistics.mean(values), std, len(values))


def mean_text(values: Sequence[float], sign: str = "") -> str:
    """Shares as percent: ``54.8 ± 0.3``; of a single value ``54.8``.

    Args:
        values: shares in [0, 1], or differences of such.
        sign: ``+`` writes the sign of a positive mean as well.
    """
    over = seed_statistics(values)
    std = "" if over.std is None else f" ± {100 * over.std:.1f}"
    return f"{100 * over.mean:{sign}.1f}{std}"


def pooled_interval(repeats: Sequence[Scored]) -> Interval | None:
    """The 95 % interval of the mean mIoU over draws of images and of seeds.

    Args:
        repeats: records of one configuration with different seeds, see `are_repeats`.

    Returns:
        None where the records have no counts per image, or no draws.

    Raises:
        ArtifactError: the counts of a record are missing or damaged.
    """
    if any(record.image_counts is None for _, record in repeats):
        return None
    first = repeats[0].record
    return seeds_interval(
        [read_image_counts(record, file) for file, record in repeats],
        class_mean=first.class_mean,
        resamples=first.resamples,
    )


def without_seed(label: str) -> str:
    """A run's label without the part that names its seed: ``prompts-8_seed-1`` → ``prompts-8``."""
    bare, count = re.subn(r"(?<![^._/])seed-\d+(_|$)", "", label)
    return bare.rstrip("._/") if count else label


def are_repeats(records: Sequence[Record]) -> bool:
    """Whether records are repeats of one configuration with different seeds.

    Everything else in them must be equal: product, data, every configured value of every stage
    before it, code, package versions and untrained weights. Exempt are the results, a threshold
    that is one of them, and the digests of weights that the runs trained.
    """
    seeds = [record.seed for record in records]
    return len({_without_seed(record) for record in records}) == 1 and len(set(seeds)) == len(seeds)


def _without_seed(record: Record) -> str:
    """A digest of everything in a record that a seed does not change."""
    dump = record.model_dump(mode="json", exclude=set(_RESULTS | _LABELS))
    dump["weights"] = _weights(record.weights)
    dump["provenance"] = _settings(record.provenance)
    dump["shard_provenance"] = [_settings(entry) for entry in record.shard_provenance]
    if record.at_best_threshold:
        del dump["background"]["value"]
    return digest_json(dump)


def _settings(provenance: Provenance) -> dict[str, Any]:
    dump = provenance.model_dump(mode="json", exclude={"seed", "inputs"})
    config = {key: value for key, value in provenance.config.items() if key != "name"}
    return dump | {"config": config, "weights": _weights(provenance.weights)}


def _weights(weights: dict[str, str]) -> dict[str, str]:
    return {name: "trained" if name in _TRAINED else sha for name, sha in weights.items()}
