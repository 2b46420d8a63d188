"""The score stage: records of one product on one split.

It writes a JSON file of records, and next to it an HDF5 file with the confusion counts per image
(`wsss.score.image_counts_file`).
"""

from __future__ import annotations

import difflib
import functools
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
from wsss.score.commit import project_commit
from wsss.score.image_counts_file import write_image_counts
from wsss.score.inputs import Inputs
from wsss.score.metrics.confusion import Confusion
from wsss.score.metrics.counting import count_blob, count_masks, count_predictions, count_scores
from wsss.score.metrics.image_counts import ImageCounts
from wsss.score.metrics.parallel import Counts, count_in_parallel
from wsss.score.metrics.threshold_sweep import Sweep
from wsss.score.product import HAS_THRESHOLD, PRODUCTS, ProductName
from wsss.score.record import Background, Record, numbers, write_records
from wsss.score.settings import Settings, method_before, steps
from wsss.score.tag_agreement import TagAgreement, compare_with_tags

_log = logging.getLogger(__name__)
_PROTOCOLS = ("single", "multi", "single_crf", "multi_crf")


@dataclass(frozen=True)
class _Row:
    """What tells the records of a product apart."""

    name: str
    matrix: Int64[np.ndarray, "truth prediction"]
    images: ImageCounts | None
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
        product: what the shards hold.
        manifest_dir: what ingest wrote.
        split: ``train`` or ``val``.
        shards: the shards of the split, together holding exactly its images; none for ``blob``.
        out: JSON file to write.
        settings: what the stage ``score_<product>`` reads.
        workers: processes.

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
    kind = PRODUCTS[product].shards
    inputs = Inputs.open(settings.data, manifest_dir, split, shards, kind, expected)
    report = _report_classes(settings.score.report_classes, inputs.labels)
    protocols = [name for name in _PROTOCOLS if name in inputs.arrays]
    counts = count_in_parallel(
        _counter(product, len(inputs.labels), settings.background, protocols),
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
    images = {row.name: row.images for row in rows if row.images}
    stored = write_image_counts(out, images, provenance, resamples)
    records = []
    for row in rows:
        file, interval = stored.get(row.name, (None, None))
        fields = numbers(row.matrix, inputs.labels, report) | {
            "product": product,
            "protocol": "single",
            "method": method_before(product, settings),
            "run": settings.name,
            "chain": steps(product, settings),
            "supervision": settings.supervision,
            "split": split,
            "images": inputs.images,
            "images_without_truth": len(inputs.truth.missing),
            "truth": inputs.truth.description,
            "truth_and_tags": agreement,
            "background": None,
            "crf": False,
            "scales": (1.0,),
            "seed": settings.seed,
            "variant": settings.variant,
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
    """Compare truth and tags by the counts of any row: all are over the same truth."""
    counts = next(row.images for row in rows if row.images)
    where = inputs.truth.description
    tags = {image.id: image.tags for part in inputs.parts for image in part.images}
    agreement = compare_with_tags(counts.table(), tags, inputs.labels, where)
    for text in agreement.warnings:
        _log.warning("warning: %s: %s", where, text)
    return agreement


def _counter(
    product: ProductName, labels: int, background: BackgroundConfig | None, protocols: Sequence[str]
) -> functools.partial[Counts]:
    source = PRODUCTS[product]
    if product == "blob":
        assert background is not None
        return functools.partial(count_blob, labels=labels, background=background)
    if source.array:
        assert background is not None
        return functools.partial(
            count_scores,
            kind=source.shards,
            array=source.array,
            labels=labels,
            background=background,
        )
    if source.shards == "predictions":
        return functools.partial(count_predictions, labels=labels, protocols=protocols)
    return functools.partial(count_masks, labels=labels, kind=source.shards)


def _score_rows(
    settings: Settings, counts: Counts, inputs: Inputs, report: Sequence[str]
) -> Iterator[_Row]:
    """At the configured rule, and at the best threshold."""
    fixed, sweep = counts["fixed"], counts["sweep"]
    assert isinstance(fixed, Confusion)
    assert isinstance(sweep, Sweep)
    rule = None if "background" in inputs.arrays else settings.background
    yield _Row("fixed", fixed.matrix, fixed.images, {"background": _background(rule)})
    if settings.score.cam_thresholds == "fixed+best":
        threshold, matrix = sweep.best([inputs.labels.index(name) for name in report])
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
    return _Row("label", label.matrix, label.images, fields)


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
        yield _Row(protocol, confusion.matrix, confusion.images, fields)


def _background(rule: BackgroundConfig | None) -> Background:
    """The configured rule; None: the refiner gave a score of the background."""
    if rule is None:
        return Background(rule="refiner", value=0, source="config")
    return Background(rule=rule.rule, value=rule.value, source="config")


def _report_classes(names: Sequence[str], labels: Sequence[str]) -> list[str]:
    for name in names:
        if name not in labels:
            near = difflib.get_close_matches(name, labels, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the labels are {', '.join(labels)}"
            raise ConfigError(f"score.report_classes: {name!r} is no label of the data set; {hint}")
    return list(names)
