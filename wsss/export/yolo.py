"""YOLO's segmentation labels: a row per connected part, ``class x1 y1 x2 y2 …`` in shares.

::

    data.yaml                    folders and class names; class 0 is label 1
    images/<split>/<id>.jpg
    labels/<split>/<id>.txt

Ultralytics finds the labels of a photo where the last folder ``images`` of its path is called
``labels``, so a folder of an id has another name than that: ``images_``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from jaxtyping import UInt8

from wsss.data.manifest import item_path
from wsss.export.outlines import at_pixels, drawn_by_touch, iou, outlines
from wsss.export.report import Report
from wsss.export.task import ExportTask


def write_yolo(task: ExportTask, folder: Path, report: Report) -> None:
    """Write labels, photos and data.yaml."""
    splits = list(task.source.samples)
    for split in splits:
        photos = task.photo_writer(folder / "images" / split)
        names = _names([sample.id for sample in task.source.samples[split]])
        for mask in task.source.masks(split):
            photos.add(mask.sample, names[mask.sample.id])
            rows = []
            for label in report.count(mask.labels, keeps_unsure=False):
                inside = (mask.labels == label).astype(np.uint8)
                name = task.name(mask, label)
                rows += [f"{label - 1} {row}" for row in _rows(inside, task, report, name)]
            path = item_path(folder / "labels" / split, names[mask.sample.id], ".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
        report.turned += len(photos.turned)
    content = {
        "train": f"images/{splits[0]}",
        "val": f"images/{splits[-1]}",  # Ultralytics asks for both
        "names": dict(enumerate(task.source.classes.names)),
    }
    text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
    (folder / "data.yaml").write_text(text, encoding="utf-8")


def _names(images: Sequence[str]) -> dict[str, str]:
    """The name of each image below its folder: its id, without a folder ``images``."""
    names: dict[str, str] = {}
    all_names = set(images)
    for image in images:
        *folders, last = image.split("/")
        if "images" in folders:
            folders = ["images_" if part == "images" else part for part in folders]
            while "/".join([*folders, last]) in all_names:
                last += "_"
        names[image] = "/".join([*folders, last])
        all_names.add(names[image])
    return names


def _rows(
    inside: UInt8[np.ndarray, "h w"], task: ExportTask, report: Report, name: str
) -> list[str]:
    size = np.array(inside.shape[::-1], np.float64)
    polygons = [at_pixels(outline) for outline in outlines(inside, task.tolerance)]
    report.add_iou(iou(drawn_by_touch(polygons, *inside.shape), inside), name)
    return [" ".join(f"{value:.7g}" for value in (p / size).ravel()) for p in polygons]
