"""The score stage: records of one product on one split.

It writes a JSON file of records, and next to it an HDF5 file with the confusion counts per image
(`wsss.score.image_counts_file`).
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from wsss.artifacts.stage import STAGES
from wsss.config.errors import ConfigError
from wsss.config.labels import BackgroundConfig
from wsss.config.score import report_class_problem
from wsss.score.commit import project_commit
from wsss.score.image_counts_file import write_image_counts
from wsss.score.inputs import Inputs
from wsss.score.metrics.confusion import Confusion
from wsss.score.metrics.counting import counter
from wsss.score.metrics.parallel import Counts, count_in_parallel
from wsss.score.metrics.threshold_sweep import Sweep
from wsss.score.product import HAS_THRESHOLD, PRODUCTS, ProductName
from wsss.score.record import Background, Record, boundary_numbers, defined, numbers, write_records
from wsss.score.settings import Settings, method_before, steps
from wsss.score.tag_agreement import TagAgreement, compare_with_tags

_log = logging.getLogger(__name__)
_PROTOCOLS = ("single", "multi", "single_crf", "multi_crf")


@dataclass(frozen=True)
class _Row:
    """What tells the records of a product apart."""

    name: str
    matrix: Int64[np.ndarray, "truth prediction"]
    confusion: Confusion | None
    """With the counts per image and of boundaries; None at the best threshold."""
    fields: dict[str, Any] = field(default_factory=dict)


def run(
    product: ProductName,
    manifest_dir: Path,
    split: str,
    shards: Sequence[Path],
    out: Path,
    settings: Settings,
    *,
    workers: int,
) -> list[Record]:
    """Score a product.

    - Class scores (blob, cam, affinity, refiner_scores): a record at the configured background rule
      and, unless ``score.cam_thresholds`` is ``fixed``, one at the threshold that is best on this
      same truth. The blob is the floor that a CAM must clear: one fixed Gaussian at the centre, for
      the first tag; it ignores the picture.
    - Label maps made from tags (seeds, masks): ``label`` for the metrics, ``train`` for the
      coverage.
    - Predictions (refiner_prediction, segmenter): a record for each protocol of the shards.

    Args:
        manifest_dir: what ingest wrote, or tag-noise.
        split: ``train`` or ``val``.
        shards: the shards of the split, together holding exactly its images; none for ``blob``.
        out: JSON file to write.
        settings: what the stage ``score_<product>`` reads.

    Returns:
        The records that were written.

    Raises:
        TruthError: ground truth is missing, of another size than its image, or contradicts the
            tags.
        ProductError: the shards do not fit the split, hold what cannot be scored, or were made with
            other settings, weights or images than those that the record would name.
        ArtifactError: a shard is missing or damaged.
        ConfigError: a report class is no label of the data set.
    """
    expected = STAGES[f"score_{product}"].provenance(vars(settings))
    data = (settings.data, settings.tag_noise)
    inputs = Inputs.open(*data, manifest_dir, split, shards, PRODUCTS[product].shards, expected)
    report = _report_classes(settings.score.report_classes, inputs.labels)
    protocols = [name for name in _PROTOCOLS if name in inputs.arrays]
    ratio, class_mean = settings.score.boundary_ratio, settings.score.class_mean
    counts = count_in_parallel(
        counter(product, len(inputs.labels), settings.background, protocols, ratio),
        inputs.parts,
        workers=workers,
        description=f"Scoring {product}",
    )
    if product in HAS_THRESHOLD:
        rows = list(_score_rows(settings, counts, inputs, report))
    elif product in ("seeds", "masks"):
        rows = [_mask_row(settings, counts)]
    else:
        rows = list(_prediction_rows(settings, counts, protocols))
    agreement = _agreement(rows, inputs)
    provenance = expected.model_copy(update={"weights": inputs.weights, "inputs": inputs.digests})
    resamples = settings.score.resamples
    counted = {row.name: row.confusion.image_counts for row in rows if row.confusion}
    stored = write_image_counts(out, counted, provenance, inputs.tags, class_mean, resamples)
    records = []
    for row in rows:
        file, interval = stored.get(row.name, (None, None))
        boundary = row.confusion.boundary if row.confusion else None
        fields = numbers(row.matrix, inputs.labels, report, class_mean)
        if boundary:
            fields |= boundary_numbers(boundary.counts, inputs.labels, class_mean)
        fields |= {
            "product": product,
            "protocol": "single",
            "method": method_before(product, settings),
            "run": settings.name,
            "chain": steps(product, settings),
            "supervision": settings.learned_from,
            "learned": inputs.learned,
            "split": split,
            "images": inputs.images,
            "images_without_truth": len(inputs.truth.missing),
            "truth": inputs.truth.description,
            "truth_rule": inputs.truth.rule,
            "truth_and_tags": agreement,
            "tag_quality": inputs.tag_quality,
            "background": None,
            "crf": False,
            "scales": (1.0,),
            "seed": settings.seed,
            "variant": settings.variant,
            "class_mean": class_mean,
            "boundary_ratio": ratio if boundary else 0,
            "miou_low": interval.low if interval else None,
            "miou_high": interval.high if interval else None,
            "resamples": resamples if interval else 0,
            "image_counts": file,
            "weights": inputs.weights,
            "provenance": provenance,
            "shard_provenance": inputs.shard_provenance,
            "commit": project_commit(),
        }
        records.append(Record.model_validate(fields | row.fields))
    write_records(out, records)
    return records


def _agreement(rows: Sequence[_Row], inputs: Inputs) -> TagAgreement:
    """Compare truth and given tags by the counts of any row: all are over the same truth."""
    counts = next(row.confusion.images for row in rows if row.confusion)
    where = inputs.truth.description
    agreement = compare_with_tags(counts.table(), inputs.tags, inputs.labels, where)
    for text in agreement.warnings:
        _log.warning("%s: %s", where, text)
    return agreement


def _score_rows(
    settings: Settings, counts: Counts, inputs: Inputs, report: Sequence[str]
) -> Iterator[_Row]:
    """At the configured rule, and at the best threshold."""
    fixed, sweep = counts["fixed"], counts["sweep"]
    assert isinstance(fixed, Confusion)
    assert isinstance(sweep, Sweep)
    rule = None if "background" in inputs.arrays else settings.background
    among = [inputs.labels.index(name) for name in report]
    curve = sweep.curve(among, settings.score.class_mean)
    fields = {
        "background": _background(rule),
        "miou_by_threshold": tuple(map(defined, curve)),
        "foreground_by_score": tuple(sweep.reliability()),
    }
    yield _Row("fixed", fixed.matrix, fixed, fields)
    if settings.score.cam_thresholds == "fixed+best":
        threshold, matrix = sweep.best(curve)
        background = Background(
            rule="constant",
            value=threshold,
            source="best on this truth",
            criterion="mean IoU of the report classes" if report else "mIoU",
        )
        yield _Row("best", matrix, None, {"background": background})


def _mask_row(settings: Settings, counts: Counts) -> _Row:
    label, train = counts["label"], counts["train"]
    assert isinstance(label, Confusion)
    assert isinstance(train, Confusion)
    rule: BackgroundConfig | None
    if masks := settings.masks:
        refine, infer = settings.refine, settings.infer
        scores_background = refine and infer and refine.is_trained and infer.scores == "decoder"
        rule, crf = None if scores_background else masks.background, masks.crf
    else:
        seeds = settings.seeds
        assert seeds is not None
        rule = BackgroundConfig(rule=seeds.rule, value=statistics.mean(set(seeds.values)))
        crf = seeds.crf
    fields = {
        "background": _background(rule),
        "crf": crf.enabled,
        "coverage": train.coverage,
        "coverage_accuracy": train.metrics().pixel_accuracy,
    }
    return _Row("label", label.matrix, label, fields)


def _prediction_rows(
    settings: Settings, counts: Counts, protocols: Sequence[str]
) -> Iterator[_Row]:
    source = settings.predict or settings.infer
    assert source is not None
    for protocol in protocols:
        confusion = counts[protocol]
        assert isinstance(confusion, Confusion)
        fields = {
            "protocol": protocol,
            "crf": protocol.endswith("_crf"),
            "scales": tuple(source.scales) if protocol.startswith("multi") else (1.0,),
        }
        yield _Row(protocol, confusion.matrix, confusion, fields)


def _background(rule: BackgroundConfig | None) -> Background:
    """The configured rule; None: the refiner gave a score of the background."""
    if rule is None:
        return Background(rule="refiner", value=0, source="config")
    return Background(rule=rule.rule, value=rule.value, source="config")


def _report_classes(names: Sequence[str], labels: Sequence[str]) -> list[str]:
    for name in names:
        if problem := report_class_problem(name, labels):
            raise ConfigError(problem)
    return list(names)
