"""Photos and index PNGs in parallel folders, with equal names, and a table of the classes.

::

    images/<split>/<id>.jpg
    labels/<split>/<id>.png      0 background, 1 … classes, 255 unsure
    classes.csv                  label, name, red, green, blue

FiftyOne (ImageSegmentationDirectory), LightlyTrain and mmsegmentation read it.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from wsss.data.images.label_png import label_png_bytes, voc_palette
from wsss.data.manifest import item_path
from wsss.export.report import Report
from wsss.export.task import UNSURE, ExportTask
from wsss.labels.ignore import IGNORED


def write_folder(task: ExportTask, folder: Path, report: Report) -> None:
    """Write photos, label PNGs and the table of classes."""
    for split in task.source.samples:
        photos = task.photo_writer(folder / "images" / split)
        for mask in task.source.masks(split):
            report.count(mask.labels, keeps_unsure=True)
            photos.add(mask.sample)
            path = item_path(folder / "labels" / split, mask.sample.id, ".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(label_png_bytes(mask.labels))
        report.turned += len(photos.turned)
    names = {0: "background", **dict(enumerate(task.source.classes.names, start=1))}
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["label", "name", "red", "green", "blue"])
    palette = voc_palette()
    for label, name in {**names, IGNORED: UNSURE}.items():
        writer.writerow([label, name, *palette[label]])
    (folder / "classes.csv").write_text(buffer.getvalue(), encoding="utf-8")
