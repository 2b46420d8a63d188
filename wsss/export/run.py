"""Export the masks of a run in one of the formats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from wsss.export.coco import write_coco
from wsss.export.cvat import write_cvat
from wsss.export.folder import write_folder
from wsss.export.label_studio import write_label_studio
from wsss.export.report import Report
from wsss.export.target import new_file, new_folder
from wsss.export.task import ExportTask
from wsss.export.yolo import write_yolo

Form = Literal["coco", "label-studio", "cvat", "yolo", "folder"]
_ARCHIVE: Final = "cvat"
_WRITERS: Final[dict[Form, tuple[str, Callable[[ExportTask, Path, Report], None]]]] = {
    "coco": ("COCO", write_coco),
    "label-studio": ("Label Studio", write_label_studio),
    "cvat": ("CVAT, Segmentation mask 1.1", write_cvat),
    "yolo": ("YOLO segmentation", write_yolo),
    "folder": ("photos and index PNGs", write_folder),
}


def export(form: Form, task: ExportTask, out: Path, *, overwrite: bool = False) -> Report:
    """Write all masks; nothing is left of an export that fails.

    Args:
        out: folder to write; of CVAT the archive, which gets the ending .zip if it has none.
        overwrite: replace an older export.

    Returns:
        What was written.

    Raises:
        ExportError: ``out`` holds other things, or the format cannot hold the masks.
        ArtifactError: a shard is missing or damaged.
    """
    title, write = _WRITERS[form]
    if form == _ARCHIVE and out.suffix.lower() != ".zip" and not out.is_dir():
        out = out.with_name(f"{out.name}.zip")  # CVAT takes no file of another name
    report = Report(out, title)
    if form == _ARCHIVE:
        with new_file(out, overwrite=overwrite) as archive:
            write(task, archive, report)
    else:
        with new_folder(out, task.about(form), overwrite=overwrite) as folder:
            write(task, folder, report)
    return report
