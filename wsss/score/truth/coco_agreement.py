"""How far the rules by which COCO's label maps are drawn agree with each other."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wsss.config.data import CocoRule
from wsss.data.datasets.coco import instances_path
from wsss.data.datasets.words import COCO_NAMES
from wsss.score.metrics.confusion import Confusion
from wsss.score.metrics.parallel import Counts, count_in_parallel
from wsss.score.truth.coco import DRAWN_RULES, CocoLabels, CocoTruth

_IMAGES_PER_PART = 64
Pair = tuple[CocoRule, CocoRule]
PAIRS: tuple[Pair, ...] = tuple(itertools.combinations(DRAWN_RULES, 2))


@dataclass(frozen=True)
class RuleAgreement:
    """mIoU of the label maps of one rule against those of another, by pair of rules."""

    part: str
    images: int
    confusion: Mapping[Pair, Confusion]
    """Pixels that are void by either rule are left out."""

    def __str__(self) -> str:
        lines = [f"{self.part}2014, {self.images} images, pixels that are not void by either rule:"]
        for (first, second), confusion in self.confusion.items():
            metrics = confusion.metrics()
            lines.append(
                f"  {first} and {second}: mIoU {100 * metrics.miou:.1f}, "
                f"{100 * metrics.pixel_accuracy:.2f} % of the pixels equal"
            )
        return "\n".join(lines)


def compare_rules(root: Path, part: str, *, workers: int) -> RuleAgreement:
    """Draw every image of a part by every rule, and compare.

    Args:
        part: ``train`` or ``val``.

    Raises:
        DataError: the instances JSON is missing, or no JSON of COCO's.
        TruthError: an annotation cannot be drawn.
    """
    labels = CocoLabels(instances_path(root, part), DRAWN_RULES[0])
    truths = [truth for name in labels.file_names if (truth := labels.find(name))]
    starts = range(0, len(truths), _IMAGES_PER_PART)
    jobs = [truths[start : start + _IMAGES_PER_PART] for start in starts]
    counts = count_in_parallel(_count, jobs, workers=workers, description=f"comparing {part}2014")
    confusion = {pair: counts[_name(pair)] for pair in PAIRS}
    return RuleAgreement(
        part, len(truths), {p: c for p, c in confusion.items() if isinstance(c, Confusion)}
    )


def _count(truths: Sequence[CocoTruth]) -> Counts:
    counts = {pair: Confusion(len(COCO_NAMES) + 1, ignore_band=True) for pair in PAIRS}
    for truth in truths:
        drawn = {rule: replace(truth, rule=rule).read() for rule in DRAWN_RULES}
        for (first, second), confusion in counts.items():
            confusion.add(drawn[first], drawn[second])
    return {_name(pair): confusion for pair, confusion in counts.items()}


def _name(pair: Pair) -> str:
    return " and ".join(pair)
