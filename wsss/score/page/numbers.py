"""The numbers of a result page, from records and their counts per image."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from wsss.score.image_counts_file import Scored, read_image_counts
from wsss.score.metrics.confusion import iou_of
from wsss.score.metrics.image_counts import CountTable
from wsss.score.record import Record
from wsss.score.tables.rows import row_name

SIZES = (0.01, 0.03, 0.1, 0.3)
"""Shares of the image between the groups of object sizes."""
_LAYER_OF = {
    "cam": "cam", "affinity": "cam_affinity", "seeds": "seed", "refiner_scores": "refined",
    "masks": "mask", "refiner_prediction": "refiner", "segmenter": "prediction",
}  # fmt: skip
_FROM_TAGS = frozenset({"blob", "cam", "affinity", "seeds", "refiner_scores", "masks"})
_AT_ONCE = 4096  # images; the counts of all labels in a million take gigabytes
_BIN = 5  # of the hundred bins of the class score, per bar of the reliability diagram


def rows_of(scored: Sequence[Scored], images: Sequence[str]) -> list[dict[str, Any]]:
    """What the page shows of each scored row of a split, in their order.

    Args:
        scored: the records of one split.
        images: ids of the pictures; their counts go into the page.
    """
    rows = []
    for file, record in scored:
        best = "-best" if record.at_best_threshold else ""
        row: dict[str, Any] = {
            "key": f"{record.product}-{record.protocol}{best}",
            "title": row_name(record),
            "layer": _LAYER_OF.get(record.product, ""),
            "tags": record.product in _FROM_TAGS,
            "best": record.at_best_threshold,
            "miou": record.miou,
            "low": record.miou_low,
            "high": record.miou_high,
            "iou": list(record.iou.values()),
            "curve": list(record.miou_by_threshold),
            "reliability": _reliability(record),
        }
        if record.image_counts is not None and not best:
            table = read_image_counts(record, file)
            row |= _of_images(table, images)
            row["confusion"] = [list(counts) for counts in record.confusion]
            row["sizes"] = iou_by_size(table)
        rows.append(row)
    return rows


def image_ious(table: CountTable) -> Float64[np.ndarray, "labels images"]:
    """IoU of each label in each image; NaN where neither truth nor prediction has it."""
    counts = table.sums().toarray().reshape(3, table.labels, -1)
    return iou_of(*counts)


def iou_by_size(table: CountTable) -> list[dict[str, float | int | None]]:
    """The mean IoU of objects by their size: an object is a class in the truth of an image.

    Returns:
        For each group between `SIZES`: number of objects, and the mean of their IoU.
    """
    sums, ious, groups = table.sums().tocsc(), [np.zeros(0)], [np.zeros(0, np.int64)]
    for start in range(0, len(table.ids), _AT_ONCE):
        counts: Int64[np.ndarray, "3 labels images"] = (
            sums[:, start : start + _AT_ONCE].toarray().reshape(3, table.labels, -1)
        )
        true = counts[1, 1:]
        share = true / np.maximum(counts[1].sum(axis=0), 1)
        ious.append(iou_of(*counts)[1:][true > 0])
        groups.append(np.digitize(share, SIZES)[true > 0])
    iou, group = np.concatenate(ious), np.concatenate(groups)
    sizes: list[dict[str, float | int | None]] = []
    for index in range(len(SIZES) + 1):
        inside = iou[group == index]
        sizes.append({"objects": inside.size, "iou": float(inside.mean()) if inside.size else None})
    return sizes


def _of_images(table: CountTable, images: Sequence[str]) -> dict[str, Any]:
    """The mean IoU of each pictured image, and its confusion counts as a flat list.

    An image without a truth was not counted: it has no IoU and no counts.
    """
    part = table.of(set(table.ids).intersection(images))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # an image of ignored pixels alone
        means = np.nanmean(image_ious(part), axis=0)
    position = {image: index for index, image in enumerate(part.ids)}
    mean_list: list[float | None] = []
    cells: list[list[int]] = []
    for image in images:
        index = position.get(image)
        if index is None:
            mean_list.append(None)
            cells.append([])
            continue
        mean_list.append(None if np.isnan(means[index]) else round(float(means[index]), 4))
        row = slice(*part.bounds[index:][:2])
        pairs = np.stack([part.cell[row].astype(np.int64), part.count[row]], axis=1)
        cells.append(pairs.ravel().tolist())  # cell, count, cell, count …
    return {"image_iou": mean_list, "cells": cells}


def _reliability(record: Record) -> list[list[int]]:
    """Foreground pixels and correct ones by class score, in bars of `_BIN` hundredths."""
    counts = record.foreground_by_score
    bars = [counts[start : start + _BIN] for start in range(0, len(counts), _BIN)]
    return [[sum(pixels for pixels, _ in bar), sum(hit for _, hit in bar)] for bar in bars]
