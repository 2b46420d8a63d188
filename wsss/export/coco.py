"""COCO's instances JSON: an annotation per image and class, exact as run lengths or as polygons.

::

    annotations/instances_<split>.json
    images/<split>/<id>.jpg      file_name is the name below images/<split>

Category k is the class with label k. Runs on COCO itself keep its category ids and image ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from pycocotools import mask as rle

from wsss.artifacts.progress import track
from wsss.config.base import Split
from wsss.data.datasets.classes import ClassList
from wsss.data.datasets.coco import CATEGORY_IDS
from wsss.data.manifest import Sample
from wsss.export.outlines import at_edges, drawn_by_centres, iou, outlines
from wsss.export.report import Report
from wsss.export.task import ExportTask


def write_coco(task: ExportTask, folder: Path, report: Report) -> None:
    """Write a JSON per split, and the photos."""
    (folder / "annotations").mkdir()
    for split, samples in task.source.samples.items():
        photos = task.photo_writer(folder / "images" / split)
        names = track(
            map(photos.add, samples), total=len(samples), description=f"Photos of {split}"
        )
        ids = _image_ids(task.source.classes, samples)
        images = [
            {"id": number, "file_name": str(name), "width": sample.width, "height": sample.height}
            for number, name, sample in zip(ids, names, samples, strict=True)
        ]
        report.turned += len(photos.turned)
        numbers = {sample.id: image["id"] for sample, image in zip(samples, images, strict=True)}
        content = {
            "info": {"description": f"{task.source.product} masks of {task.source.run.name}"},
            "categories": _categories(task.source.classes),
            "images": images,
        }
        path = folder / "annotations" / f"instances_{split}.json"
        annotations = _annotations(task, split, numbers, report)
        with path.open("w", encoding="utf-8") as stream:  # one annotation in memory at a time
            head = json.dumps(content, ensure_ascii=False)
            stream.write(head.removesuffix("}") + ', "annotations": [')
            for number, annotation in enumerate(annotations, start=1):
                text = json.dumps({"id": number, **annotation}, ensure_ascii=False)
                stream.write(("," if number > 1 else "") + "\n" + text)
            stream.write("\n]}\n")


def _annotations(
    task: ExportTask, split: Split, numbers: Mapping[str, Any], report: Report
) -> Iterator[dict[str, Any]]:
    categories = _category_ids(task.source.classes)
    for mask in task.source.masks(split):
        for label in report.count(mask.labels, keeps_unsure=False):
            inside = (mask.labels == label).astype(np.uint8)
            encoded = rle.encode(np.asfortranarray(inside))
            yield {
                "image_id": numbers[mask.sample.id],
                "category_id": categories[label - 1],
                "iscrowd": 0,
                "area": int(rle.area(encoded)),
                "bbox": rle.toBbox(encoded).tolist(),
                "segmentation": (
                    _polygons(inside, task, report, task.name(mask, label))
                    if task.polygons
                    else {"size": list(inside.shape), "counts": encoded["counts"].decode("ascii")}
                ),
            }


def _polygons(
    inside: UInt8[np.ndarray, "h w"], task: ExportTask, report: Report, name: str
) -> list[list[float]]:
    polygons = [at_edges(outline) for outline in outlines(inside, task.tolerance)]
    report.add_iou(iou(drawn_by_centres(polygons, *inside.shape), inside), name)
    return [polygon.ravel().tolist() for polygon in polygons]


def _category_ids(classes: ClassList) -> tuple[int, ...]:
    return CATEGORY_IDS if classes.name == "coco" else tuple(range(1, len(classes.names) + 1))


def _categories(classes: ClassList) -> list[dict[str, object]]:
    pairs = zip(_category_ids(classes), classes.names, strict=True)
    return [{"id": number, "name": name, "supercategory": ""} for number, name in pairs]


def _image_ids(classes: ClassList, samples: tuple[Sample, ...]) -> list[int]:
    """COCO's own numbers, which its file names end in; else 1, 2 …"""
    ends = [sample.id.rpartition("_")[2] for sample in samples]
    if classes.name == "coco" and all(end.isdecimal() for end in ends):
        return list(map(int, ends))
    return list(range(1, len(samples) + 1))
