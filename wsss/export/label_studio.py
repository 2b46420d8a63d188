"""Label Studio: tasks with brush predictions, and the labelling configuration with the same names.

::

    tasks.json      data.image is the address of the photo; data.id and data.split name it
    config.xml      a brush label per class, and one for unsure pixels
    images/<split>/<id>.jpg
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from wsss.export.brush import encode_brush
from wsss.export.report import Report
from wsss.export.task import ExportTask
from wsss.labels.ignore import IGNORED
from wsss.score.page.palette import hex_colours, picture_palette

TAG, IMAGE = "tag", "image"
"""Names that the tasks and the labelling configuration share."""
LOCAL_FILES: Final = "/data/local-files/?d=images/"
"""Label Studio's address of photos on its own disk, below LOCAL_FILES_DOCUMENT_ROOT."""
_UNSURE_COLOUR = "#ffffff"


def write_label_studio(task: ExportTask, folder: Path, report: Report) -> None:
    """Write tasks, labelling configuration and photos."""
    (folder / "config.xml").write_text(_config(task), encoding="utf-8")
    with (folder / "tasks.json").open("w", encoding="utf-8") as stream:
        stream.write("[")
        for index, entry in enumerate(_tasks(task, folder, report)):
            stream.write(("," if index else "") + "\n" + json.dumps(entry, ensure_ascii=False))
        stream.write("\n]\n")


def _tasks(task: ExportTask, folder: Path, report: Report) -> Iterator[dict[str, Any]]:
    words = task.words()
    root = f"{task.photo_root.rstrip('/')}/" if task.photo_root else LOCAL_FILES
    version = f"{task.source.run.name} {task.source.product}"
    for split in task.source.samples:
        photos = task.photo_writer(folder / "images" / split)
        for mask in task.source.masks(split):
            labels = report.count(mask.labels, keeps_unsure=True)
            labels += [IGNORED] if np.any(mask.labels == IGNORED) else []
            name = photos.add(mask.sample)
            results = [_result(mask.labels == label, words[label]) for label in labels]
            yield {
                "data": {
                    IMAGE: f"{root}{split}/{quote(str(name))}",
                    "id": mask.sample.id,
                    "split": split,
                },
                "predictions": [{"model_version": version, "result": results}],
            }
        report.turned += len(photos.turned)


def _result(inside: np.ndarray, word: str) -> dict[str, Any]:
    height, width = inside.shape
    return {
        "from_name": TAG,
        "to_name": IMAGE,
        "type": "brushlabels",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {
            "format": "rle",
            "rle": encode_brush(inside.astype(np.uint8)),
            "brushlabels": [word],
        },
    }


def _config(task: ExportTask) -> str:
    words = task.words()
    classes = task.source.classes
    colours = hex_colours(picture_palette(classes.label_count), classes.label_count)
    labels = [
        f"    <Label value={quoteattr(word)} background="
        f"{quoteattr(_UNSURE_COLOUR if label == IGNORED else colours[label])}/>"
        for label, word in words.items()
    ]
    head = f'  <Image name="{IMAGE}" value="${IMAGE}" zoom="true" zoomControl="true"/>'
    brush = f'  <BrushLabels name="{TAG}" toName="{IMAGE}">'
    return "\n".join(["<View>", head, brush, *labels, "  </BrushLabels>", "</View>", ""])
