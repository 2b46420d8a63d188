"""The score stage: records of CAMs, pseudo masks, predictions and the centred blob.

Every function scores one product on one split and writes one JSON file of records, and beside it
one HDF5 file with the confusion counts of each image (`wsss.score.image_counts_file`).
"""

from __future__ import annotations

import difflib
import functools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from wsss.artifacts.commit import project_commit
from wsss.config.errors import ConfigError
from wsss.config.model import Config
from wsss.score.image_counts_file import Evidence, keep_counts
from wsss.score.metrics.confusion import Confusion
from wsss.score.metrics.counting import count_blob, count_masks, count_predictions, count_scores
from wsss.score.metrics.parallel import Counts, count_in_parallel
from wsss.score.metrics.threshold_sweep import Sweep
from wsss.score.product import Product
from wsss.score.record import Background, Record, numbers, write_records

_ROWS = {"cam": "CAM", "refined": "CAM + affinity"}
_METHODS = {"none": "refined", "weclip": "WeCLIP", "weakclip": "WeakCLIP", "excel": "ExCEL"}
_PROTOCOLS = ("single", "multi", "single_crf", "multi_crf")


def score_cams(
    config: Config,
    manifest_dir: Path,
    split: str,
    shards: Sequence[Path],
    array: Literal["cam", "refined", "score"],
    out: Path,
) -> list[Record]:
    """Score class scores on the patch grid.

    Gives a record at the configured background rule and, unless ``score.cam_thresholds`` is
    ``fixed``, one at the threshold that is best on this same truth.

    Args:
        config: reads name, seed, variant, data, cams, refine, masks and score.
        manifest_dir: what ingest wrote.
        split: ``train`` or ``val``.
        shards: the shards of the split, together holding exactly its images.
        array: ``cam`` or ``refined`` of CAM shards, ``score`` of a refiner's.
        out: JSON file to write.

    Returns:
        The records that were written.

    Raises:
        TruthError: ground truth is missing or of another size than its image.
        ProductError: the shards do not fit the split, or hold what cannot be scored.
        ArtifactError: a shard is missing or damaged.
    """
    kind = "scores" if array == "score" else "cams"
    product = Product.open(config, manifest_dir, split, shards, kind)
    count = functools.partial(
        count_scores,
        kind=kind,
        array=array,
        labels=len(product.names),
        background=config.masks.background,
    )
    row = f"{_METHODS[config.refine.method]} scores" if array == "score" else _ROWS[array]
    counts = count_in_parallel(
        count, product.parts, workers=config.compute.workers, description=f"Scoring {row}"
    )
    stage = "refine" if array == "score" else "cams"
    chain = _cam_chain(config, affinity=array != "cam", refined=array == "score")
    rule = _background(config, own="background" in product.arrays)
    return _score_rows(config, product, counts, row, stage, chain, out, rule)


def score_blob(config: Config, manifest_dir: Path, split: str, out: Path) -> list[Record]:
    """Score the floor that a CAM must clear: one fixed Gaussian at the centre, for the first tag.

    It ignores the picture. Deviation: `wsss.score.metrics.counting.BLOB_SIGMA`. Records as
    `score_cams`.
    """
    product = Product.open(config, manifest_dir, split, None, None)
    count = functools.partial(
        count_blob, labels=len(product.names), background=config.masks.background
    )
    counts = count_in_parallel(
        count, product.parts, workers=config.compute.workers, description="Scoring centred blob"
    )
    row = ("centred blob", "score")
    rule = _background(config, own=False)
    return _score_rows(config, product, counts, *row, "centred blob", out, rule)


def score_masks(
    config: Config,
    manifest_dir: Path,
    split: str,
    shards: Sequence[Path],
    out: Path,
    *,
    of: Literal["masks", "seeds"] = "masks",
) -> list[Record]:
    """Score label maps made from tags: ``label`` for the metrics, ``train`` for its coverage.

    Arguments and errors as `score_cams`.

    Args:
        config: see `score_cams`; of seeds also seeds.
        manifest_dir: see `score_cams`.
        split: see `score_cams`.
        shards: see `score_cams`.
        out: see `score_cams`.
        of: pseudo masks, or the seeds that a refiner learns from.
    """
    product = Product.open(config, manifest_dir, split, shards, of)
    counts = count_in_parallel(
        functools.partial(count_masks, labels=len(product.names), kind=of),
        product.parts,
        workers=config.compute.workers,
        description="Scoring pseudo masks" if of == "masks" else "Scoring seeds",
    )
    label, train = counts["label"], counts["train"]
    assert isinstance(label, Confusion)
    assert isinstance(train, Confusion)
    if of == "masks":
        own = config.refine.is_trained and config.infer.scores == "decoder"
        row, chain, background = "pseudo mask", _mask_chain(config), _background(config, own=own)
    else:
        row, chain = "seed", f"{_cam_chain(config, affinity=True, refined=False)} → seeds"
        rule = config.seeds
        value = statistics.mean(set(rule.values))
        background = Background(rule=rule.rule, value=value, source="config")
    evidence = keep_counts(out, counts, ["label"], product.provenance, config.score.resamples)
    record = _record(
        config,
        product,
        label,
        evidence["label"],
        row=row,
        stage="masks",
        chain=chain,
        background=background,
        crf=config.masks.crf.enabled if of == "masks" else config.seeds.crf.enabled,
        coverage=train.coverage,
        coverage_accuracy=train.metrics().pixel_accuracy,
    )
    write_records(out, [record])
    return [record]


def score_predictions(
    config: Config,
    manifest_dir: Path,
    split: str,
    shards: Sequence[Path],
    out: Path,
    *,
    of: Literal["segmenter", "refiner"] = "segmenter",
) -> list[Record]:
    """Score predictions made without tags: one record for each protocol that the shards hold.

    ``single`` (scale 1), ``multi`` (all scales and flip), and both after a dense CRF. Arguments and
    errors as `score_cams`.

    Args:
        config: see `score_cams`; also predict, or infer.
        manifest_dir: see `score_cams`.
        split: see `score_cams`.
        shards: see `score_cams`.
        out: see `score_cams`.
        of: what predicted.
    """
    product = Product.open(config, manifest_dir, split, shards, "predictions")
    protocols = [name for name in _PROTOCOLS if name in product.arrays]
    counts = count_in_parallel(
        functools.partial(count_predictions, labels=len(product.names), protocols=protocols),
        product.parts,
        workers=config.compute.workers,
        description="Scoring predictions",
    )
    if of == "segmenter":
        model = product.provenance_config.get("retrain", {}).get("model", "segmenter")
        row, stage, chain = "segmenter", "retrain", f"{_mask_chain(config)} → {model}"
        scales = tuple(config.predict.scales)
    else:
        row, stage = f"{_METHODS[config.refine.method]} prediction", "refine"
        chain, scales = _cam_chain(config, affinity=True, refined=True), tuple(config.infer.scales)
    evidence = keep_counts(out, counts, protocols, product.provenance, config.score.resamples)
    records = []
    for name in protocols:
        confusion = counts[name]
        assert isinstance(confusion, Confusion)
        multi = name.startswith("multi")
        record = _record(
            config,
            product,
            confusion,
            evidence[name],
            row=row,
            stage=stage,
            chain=chain,
            crf=name.endswith("_crf"),
            scales=scales if multi else (1.0,),
            flip=multi,
        )
        records.append(record)
    write_records(out, records)
    return records


def _background(config: Config, *, own: bool) -> Background:
    """How background was told from foreground, as configured."""
    if own:
        return Background(rule="own", value=0, source="config")
    rule = config.masks.background
    return Background(rule=rule.rule, value=rule.value, source="config")


def _score_rows(
    config: Config,
    product: Product,
    counts: Counts,
    row: str,
    stage: str,
    chain: str,
    out: Path,
    rule: Background,
) -> list[Record]:
    """The records of class scores: at the configured rule, and at the best threshold."""
    fixed, sweep = counts["fixed"], counts["sweep"]
    assert isinstance(fixed, Confusion)
    assert isinstance(sweep, Sweep)
    make = functools.partial(_record, config, product, row=row, stage=stage, chain=chain)
    evidence = keep_counts(out, counts, ["fixed"], product.provenance, config.score.resamples)
    records = [make(fixed, evidence["fixed"], background=rule)]
    if config.score.cam_thresholds == "fixed+best":
        report = _report_classes(config, product.names)
        threshold, matrix = sweep.best([product.names.index(name) for name in report])
        best = Confusion(sweep.labels)
        best.matrix = matrix
        background = Background(
            rule="constant",
            value=threshold,
            source="best on this truth",
            criterion="mean IoU of the report classes" if report else "mIoU",
        )
        records.append(make(best, background=background))
    write_records(out, records)
    return records


def _record(
    config: Config,
    product: Product,
    confusion: Confusion,
    evidence: Evidence | None = None,
    *,
    row: str,
    stage: str,
    chain: str,
    background: Background | None = None,
    crf: bool = False,
    scales: tuple[float, ...] = (1.0,),
    flip: bool = False,
    coverage: float | None = None,
    coverage_accuracy: float | None = None,
) -> Record:
    """One record; what the arguments do not say comes from the configuration and the product."""
    fields = numbers(confusion.matrix, product.names, _report_classes(config, product.names))
    found = evidence.interval if evidence else None
    return Record.model_validate(
        fields
        | {
            "miou_low": found.low if found else None,
            "miou_high": found.high if found else None,
            "resamples": config.score.resamples if found else 0,
            "image_counts": evidence.file if evidence else None,
            "commit": project_commit(),
            "row": row,
            "run": config.name,
            "chain": chain,
            "stage": stage,
            "split": product.split,
            "images": product.count,
            "images_without_truth": len(product.truth.missing),
            "truth": product.truth.description,
            "background": background,
            "crf": crf,
            "scales": scales,
            "flip": flip,
            "seed": config.seed,
            "variant": config.variant,
            "coverage": coverage,
            "coverage_accuracy": coverage_accuracy,
            "weights": product.weights,
            "provenance": product.provenance,
        }
    )


def _cam_chain(config: Config, *, affinity: bool, refined: bool) -> str:
    tags = ["tags of masks"] if config.data.tags == "masks" else []
    parts: list[str] = [*tags, config.cams.source]
    if affinity and config.cams.has_affinity:
        parts.append("affinity")
    if refined and config.refine.method != "none":
        parts.append(config.refine.method)
    return " → ".join(parts)


def _mask_chain(config: Config) -> str:
    crf = " → CRF" if config.masks.crf.enabled else ""
    return f"{_cam_chain(config, affinity=True, refined=True)} → masks{crf}"


def _report_classes(config: Config, names: Sequence[str]) -> list[str]:
    for name in config.score.report_classes:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the labels are {', '.join(names)}"
            raise ConfigError(f"score.report_classes: {name!r} is no label of the data set; {hint}")
    return list(config.score.report_classes)
