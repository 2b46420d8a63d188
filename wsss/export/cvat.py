"""CVAT's archive "Segmentation mask 1.1", for a task that has the photos.

::

    labelmap.txt                             name:red,green,blue::
    ImageSets/Segmentation/default.txt       ids, one per line
    SegmentationClass/<id>.png               RGB, colours of the label map
    SegmentationObject/<id>.png              RGB, a colour per object; a class of an image is one
"""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from wsss.data.counted import first_names
from wsss.data.images.label_png import voc_palette
from wsss.export.errors import ExportError
from wsss.export.report import Report
from wsss.export.task import ExportTask

_TIME = (1980, 1, 1, 0, 0, 0)  # the first that a zip can name


def write_cvat(task: ExportTask, archive: Path, report: Report) -> None:
    """Write the archive.

    Raises:
        ExportError: an id is in two splits, or a class name cannot stand in the label map.
    """
    ids = [sample.id for samples in task.source.samples.values() for sample in samples]
    if twice := [image for image, count in Counter(ids).items() if count > 1]:
        raise ExportError(
            f"{len(twice)} ids are in both splits ({first_names(twice)}), which CVAT cannot tell "
            "apart; export one: --split train"
        )
    palette = np.array(voc_palette(), np.uint8)
    words = {0: "background", **task.words()}
    if wrong := [word for word in words.values() if set(word) & set(":\n") or word[:1] == "#"]:
        raise ExportError(
            f"the class name {wrong[0]!r} holds a colon or begins with #, which CVAT's label map "
            "cannot hold; rename the class, or export another format"
        )
    with zipfile.ZipFile(archive, "w") as target:
        lines = [
            f"{word}:{','.join(map(str, palette[label].tolist()))}::"
            for label, word in words.items()
        ]
        _add_text(target, "labelmap.txt", ["# label:color_rgb:parts:actions", *lines])
        _add_text(target, "ImageSets/Segmentation/default.txt", ids)
        for _, mask in task.masks():
            report.count(mask.labels, keeps_unsure=True)
            present = np.flatnonzero(np.bincount(mask.labels.ravel(), minlength=256))
            objects = np.zeros(256, np.uint8)
            objects[present] = np.arange(len(present)) + int(present[0] != 0)
            name = f"{mask.sample.id}.png"
            _add(target, f"SegmentationClass/{name}", _png(palette[mask.labels]))
            _add(target, f"SegmentationObject/{name}", _png(palette[objects[mask.labels]]))


def _png(picture: UInt8[np.ndarray, "height width 3"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()


def _add_text(target: zipfile.ZipFile, name: str, lines: list[str]) -> None:
    _add(target, name, ("\n".join(lines) + "\n").encode())


def _add(target: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Stored, since PNGs are packed already; the time says nothing, so equal masks, equal bytes."""
    info = zipfile.ZipInfo(name, _TIME)
    info.external_attr = 0o644 << 16
    target.writestr(info, content)
