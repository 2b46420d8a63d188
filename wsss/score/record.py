"""The record of one row: every number, and all that says how it came about."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64
from pydantic import BaseModel, ConfigDict, ValidationError

from wsss.artifacts.atomic import write_text
from wsss.artifacts.checksum import json_with_checksum, verified_json
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.provenance import Provenance
from wsss.score.metrics.confusion import mean_defined, metrics_of

ThresholdSource = Literal["config", "best on this truth"]


class Background(BaseModel):
    """How background was told from foreground."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: Literal["power", "constant", "own"]
    """``own``: the refiner gave a score of the background, no rule was asked."""
    value: float
    """Exponent of the power rule, or the constant score; 0 for ``own``."""
    source: ThresholdSource
    """``config``, or looked up on the very truth that is scored (optimistic: an upper bound)."""
    criterion: str = ""
    """What was highest at the best threshold."""


class ImageCountsFile(BaseModel):
    """Where the confusion counts of each image lie (`wsss.score.metrics.image_counts`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    """Name, in the folder of the record."""
    sha256: str
    row: str
    """Which counts of the file are those of this record."""


class Record(BaseModel):
    """One row of the table. Shares are in [0, 1]; None where a number is undefined."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: str
    """What was scored: CAM, CAM + affinity, seed, WeCLIP scores, pseudo mask, WeCLIP prediction,
    segmenter, centred blob."""
    run: str
    """Name of the run."""
    chain: str
    """The methods in the order in which the data walked through them."""
    stage: str
    """The stage whose product was scored."""
    split: str
    images: int
    images_without_truth: int
    truth: str
    """Which folder, or which rule."""
    background: Background | None
    """None where the product holds labels that no background rule made here."""
    crf: bool
    scales: tuple[float, ...]
    flip: bool
    seed: int
    variant: str
    iou: dict[str, float | None]
    """By label name, background first."""
    precision_by_class: dict[str, float | None]
    recall_by_class: dict[str, float | None]
    miou: float | None
    """Mean over the labels that occur in the truth or in the prediction."""
    miou_low: float | None = None
    miou_high: float | None = None
    """Ends of the 95 % interval over images; None without counts of each image."""
    resamples: int = 0
    """Draws of images behind it."""
    image_counts: ImageCountsFile | None = None
    """None for a threshold that was looked up on the truth, and where records are older."""
    precision: float | None
    """Mean over the labels that were predicted."""
    recall: float | None
    """Mean over the labels that occur in the truth."""
    pixel_accuracy: float | None
    coverage: float | None = None
    """Share of the pixels of the `train` masks that are not 255."""
    coverage_accuracy: float | None = None
    """Pixel accuracy on those."""
    report_classes: tuple[str, ...] = ()
    report_mean: float | None = None
    """Mean IoU over the report classes alone."""
    confusion: tuple[tuple[int, ...], ...]
    """Pixels, [true label][predicted label]."""
    weights: dict[str, str]
    """sha256 of the weight files that the scored product was made with, by name."""
    provenance: Provenance
    commit: str | None = None
    """Of the project when it was scored, with a plus where files differed; None outside git."""


def numbers(
    matrix: Int64[np.ndarray, "truth prediction"], names: Sequence[str], report: Sequence[str]
) -> dict[str, object]:
    """The fields of a `Record` that follow from a confusion matrix.

    Args:
        matrix: pixels, [true label, predicted label].
        names: of the labels, background first.
        report: names over which `report_mean` runs.
    """
    metrics = metrics_of(matrix)
    chosen = metrics.iou[[list(names).index(name) for name in report]]
    return {
        "iou": _named(metrics.iou, names),
        "precision_by_class": _named(metrics.precision, names),
        "recall_by_class": _named(metrics.recall, names),
        "miou": defined(metrics.miou),
        "precision": defined(metrics.mean_precision),
        "recall": defined(metrics.mean_recall),
        "pixel_accuracy": defined(metrics.pixel_accuracy),
        "report_classes": tuple(report),
        "report_mean": defined(mean_defined(chosen)) if len(chosen) else None,
        "confusion": tuple(tuple(int(count) for count in row) for row in matrix),
    }


def defined(value: float) -> float | None:
    """The value, or None for NaN, which JSON does not have."""
    return None if math.isnan(value) else float(value)


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Atomically write records as a JSON list, one record a line, each with its digest."""
    dumped = (json_with_checksum(record.model_dump(mode="json")) for record in records)
    lines = [json.dumps(record, ensure_ascii=False) for record in dumped]
    write_text(path, "[\n" + ",\n".join(lines) + "\n]\n")


def read_records(paths: Sequence[Path]) -> list[Record]:
    """Read the records of several files, in their order.

    Raises:
        ArtifactError: a file is missing or damaged, or holds no records.
    """
    records: list[Record] = []
    for path in paths:
        try:
            records += [
                Record.model_validate(verified_json(entry, path, "delete it and score again"))
                for entry in json.loads(path.read_text("utf-8"))
            ]
        except FileNotFoundError:
            raise ArtifactError(f"{path}: no such records; run `wsss score` first") from None
        except (ValidationError, ValueError, TypeError) as error:
            raise ArtifactError(
                f"{path}: holds no score records ({str(error).splitlines()[0]}); "
                "delete it and score again"
            ) from None
    return records


def _named(values: Float64[np.ndarray, " n"], names: Sequence[str]) -> dict[str, float | None]:
    return {name: defined(value) for name, value in zip(names, values.tolist(), strict=True)}
