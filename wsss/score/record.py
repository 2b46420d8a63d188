"""The record of one scored product: every number, and how it came about."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int64
from pydantic import BaseModel, ConfigDict, ValidationError

from wsss.artifacts.atomic import write_text
from wsss.artifacts.checksum import json_with_checksum, verified_json
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.provenance import Provenance
from wsss.config.base import LearnedFrom
from wsss.config.score import ClassMean
from wsss.score.metrics.confusion import averaged, iou_of, mean_defined, metrics_of
from wsss.score.product import ProductName, Protocol
from wsss.score.tag_agreement import TagAgreement
from wsss.score.tag_quality import TagQuality

SUPERVISION_SIGNS: Mapping[LearnedFrom, str] = {"tags": "I", "mixed": "M", "masks": "F"}
ThresholdSource = Literal["config", "best on this truth"]


class Background(BaseModel):
    """How background was separated from foreground."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: Literal["power", "constant", "refiner"]
    """``refiner``: the refiner gave a score of the background, no rule was applied."""
    value: float
    """Exponent of the power rule, or the constant score; 0 for ``refiner``."""
    source: ThresholdSource
    """``config``, or chosen on the very truth that is scored (optimistic)."""
    criterion: str = ""
    """What was highest at the best threshold."""


class ImageCountsFile(BaseModel):
    """Where the confusion counts per image lie (`wsss.score.metrics.image_counts`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    """Name, in the folder of the record."""
    sha256: str
    row: str
    """Which counts of the file are those of this record."""


class Record(BaseModel):
    """One scored product. Shares are in [0, 1]; None where a number is undefined."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    product: ProductName
    protocol: Protocol
    """How it was predicted; ``single`` for products that no network predicts."""
    method: str
    """Name of the refiner that came before or is scored; ``none`` without one."""
    run: str
    """Name of the run."""
    supervision: LearnedFrom = "tags"
    """``masks``: fully supervised, an upper bound. ``mixed``: corrected masks of some images."""
    learned: dict[str, int] = {}
    """Of mixed supervision: the number of images that each kind of masks taught."""
    chain: str
    """The steps that made the product, for people."""
    split: str
    images: int
    images_without_truth: int
    truth: str
    """Which folder, or which rule."""
    truth_rule: str = ""
    """Of COCO, ``data.coco_truth``; empty for other data sets, and where records are older."""
    truth_and_tags: TagAgreement | None = None
    """Whether they speak of the same objects; None where records are older."""
    tag_quality: TagQuality | None = None
    """Of a run whose tags were changed on purpose; None: it used the given ones."""
    background: Background | None
    """None where the product holds labels that no background rule made here."""
    crf: bool
    """Whether a dense CRF made the labels."""
    scales: tuple[float, ...]
    seed: int
    variant: str
    iou: dict[str, float | None]
    """By label name, background first."""
    precision_by_class: dict[str, float | None]
    recall_by_class: dict[str, float | None]
    false_positive_by_class: dict[str, float | None] = {}
    false_negative_by_class: dict[str, float | None] = {}
    """Shares of the union of truth and prediction: IoU + false positives + false negatives = 1."""
    class_mean: ClassMean = "union"
    """The labels that the means of IoU, boundary IoU, false positives and negatives run over."""
    miou: float | None
    miou_low: float | None = None
    miou_high: float | None = None
    """Ends of the 95 % interval: other images, the same training. None without counts per image."""
    resamples: int = 0
    """Draws of images behind it."""
    image_counts: ImageCountsFile | None = None
    """None for a threshold that was chosen on the truth, and where records are older."""
    false_positive: float | None = None
    false_negative: float | None = None
    """Mean shares of the union; None where records are older."""
    boundary_iou: dict[str, float | None] = {}
    """By label name (`wsss.score.metrics.boundary`); empty at a best threshold and where records
    are older."""
    boundary_miou: float | None = None
    boundary_ratio: float = 0.0
    """Width of the boundary regions as a share of the image's diagonal; 0: none were counted."""
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
    miou_by_threshold: tuple[float | None, ...] = ()
    """Of class scores: the mean IoU at each threshold of `wsss.score.metrics.threshold_sweep`."""
    foreground_by_score: tuple[tuple[int, int], ...] = ()
    """Of class scores: pixels in each hundredth of the largest score, and those whose class is
    true."""
    confusion: tuple[tuple[int, ...], ...]
    """Pixels, [true label][predicted label]."""
    weights: dict[str, str]
    """sha256 of the weight files that the scored product was made with, by name."""
    provenance: Provenance
    shard_provenance: tuple[Provenance, ...]
    """How the scored shards were made, without their inputs; usually one, none without shards."""
    commit: str | None = None
    """Of the project when it was scored, with a plus where files differed; None outside git."""

    @property
    def truth_warnings(self) -> list[str]:
        """What to look at before believing the numbers: where truth and tags disagree."""
        return self.truth_and_tags.warnings if self.truth_and_tags else []

    @property
    def tags_from_masks(self) -> bool:
        """Whether the tags behind it were read from pixel labels: ``data.tags: masks``."""
        return bool(self.provenance.config.get("data", {}).get("tags") == "masks")

    @property
    def uses_sam(self) -> bool:
        """Whether mask proposals of SAM took part (``masks.refine: sam``)."""
        masks = self.provenance.config.get("masks", {})
        return self.supervision != "masks" and masks.get("refine") == "sam"

    @property
    def supervision_sign(self) -> str:
        """``I``, ``M``, ``F``; ``I+SAM`` with mask proposals."""
        return SUPERVISION_SIGNS[self.supervision] + "+SAM" * self.uses_sam

    @property
    def backbone(self) -> str:
        """The frozen encoders behind it, ``ViT-L-14-quickgelu, openai``; empty where none is.

        A second one follows after a plus: ``… + vit_base_patch14_dinov2, lvd142m``.
        """
        config = self.provenance.config
        return " + ".join(
            _encoder_name(config[name]) for name in ("clip", "dino") if name in config
        )

    @property
    def mixture(self) -> str:
        """What taught a segmenter of mixed supervision, in words; else empty."""
        if self.supervision != "mixed":
            return ""
        counts = ", ".join(f"{count} {kind}" for kind, count in self.learned.items())
        folder = self.provenance.config.get("retrain", {}).get("corrected", "")
        return f"{counts} ({folder})"

    @property
    def at_best_threshold(self) -> bool:
        """Whether the background threshold was chosen on the truth that is scored."""
        return self.background is not None and self.background.source != "config"


def numbers(
    matrix: Int64[np.ndarray, "truth prediction"],
    names: Sequence[str],
    report: Sequence[str],
    class_mean: ClassMean = "union",
) -> dict[str, object]:
    """The fields of a `Record` that follow from a confusion matrix.

    Args:
        matrix: pixels, [true label, predicted label].
        names: of the labels, background first.
        report: names over which `report_mean` runs.
        class_mean: which labels count in means of the IoU.
    """
    metrics = metrics_of(matrix, class_mean)
    among = [list(names).index(name) for name in report]
    reported = averaged(metrics.iou, matrix.sum(axis=1), class_mean)[among]
    return {
        "iou": _named(metrics.iou, names),
        "precision_by_class": _named(metrics.precision, names),
        "recall_by_class": _named(metrics.recall, names),
        "false_positive_by_class": _named(metrics.false_positive, names),
        "false_negative_by_class": _named(metrics.false_negative, names),
        "miou": defined(metrics.miou),
        "false_positive": defined(metrics.mean_false_positive),
        "false_negative": defined(metrics.mean_false_negative),
        "precision": defined(metrics.mean_precision),
        "recall": defined(metrics.mean_recall),
        "pixel_accuracy": defined(metrics.pixel_accuracy),
        "report_classes": tuple(report),
        "report_mean": defined(mean_defined(reported)) if report else None,
        "confusion": tuple(tuple(int(count) for count in row) for row in matrix),
    }


def boundary_numbers(
    counts: Int64[np.ndarray, "3 labels"], names: Sequence[str], class_mean: ClassMean
) -> dict[str, object]:
    """The fields of a `Record` that follow from boundary regions.

    Args:
        counts: pixels hit, true and predicted of each label.
        names: of the labels, background first.
        class_mean: which labels count in the mean.
    """
    iou = iou_of(*counts)
    return {
        "boundary_iou": _named(iou, names),
        "boundary_miou": defined(mean_defined(averaged(iou, counts[1], class_mean))),
    }


def defined(value: float) -> float | None:
    """The value, or None for NaN, which JSON does not have."""
    return None if math.isnan(value) else float(value)


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Atomically write records as a JSON list, one record per line, each with its digest."""
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
                Record.model_validate(verified_json(entry, path, "score again"))
                for entry in json.loads(path.read_text("utf-8"))
            ]
        except FileNotFoundError:
            raise ArtifactError(f"{path}: no such records; run `wsss score` first") from None
        except (ValidationError, ValueError, TypeError) as error:
            raise ArtifactError(
                f"{path}: holds no score records ({str(error).splitlines()[0]}); pass a file that "
                "`wsss score` wrote (results/<run>/scores/*.json); if it is one, score again"
            ) from None
    return records


def _named(values: Float64[np.ndarray, " n"], names: Sequence[str]) -> dict[str, float | None]:
    return {name: defined(value) for name, value in zip(names, values.tolist(), strict=True)}


def _encoder_name(section: Mapping[str, Any]) -> str:
    """Model and weights of a section ``clip`` or ``dino``; of files their names."""
    names = (str(section.get(key, "")) for key in ("model", "pretrained"))
    return ", ".join(Path(name).stem if "/" in name else name for name in names if name)
