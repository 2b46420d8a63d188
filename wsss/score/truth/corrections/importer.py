"""Import corrected masks into a folder of index PNGs that scoring and the segmenter take.

::

    <out>/<id>.png      0 background, 1 … classes, 255 unsure
    <out>/.no-photos    these are no photos, wherever the folder lies

Masks that are still those of the run are left out: nobody corrected them, so they are no truth. A
later import adds to the folder, and removes nothing; a mask that is equal to the one there is not
written again. Each mask is written whole or not at all: after an error, mend the source and import
it again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

from wsss.artifacts.progress import track
from wsss.artifacts.watch import leave_out
from wsss.data.images.label_png import label_png_bytes, save_label_png
from wsss.data.manifest import item_path
from wsss.data.manifest_folder import load
from wsss.score.truth.corrections.coco import read_coco
from wsss.score.truth.corrections.cvat import read_cvat
from wsss.score.truth.corrections.images import Correction, RunImages
from wsss.score.truth.corrections.label_studio import read_label_studio
from wsss.score.truth.corrections.pngs import read_pngs
from wsss.score.truth.corrections.report import ImportReport
from wsss.score.truth.corrections.unchanged import Labels, is_unchanged
from wsss.score.truth.errors import TruthError

_Reader = Callable[[Path, RunImages, ImportReport], Iterator[Correction]]
Source = Literal["coco", "label-studio", "cvat", "png"]
_OUTLINED = {"coco", "cvat"}


def import_masks(
    source: Path,
    form: Source,
    manifest_dir: Path,
    out: Path,
    *,
    run_masks: Callable[[str], Iterable[Labels]] | None = None,
    keep_empty: bool = False,
) -> ImportReport:
    """Write the corrected masks of a file or folder as index PNGs.

    Args:
        source: file (of ``png``: folder) to read.
        manifest_dir: the manifest of the run that the masks belong to.
        out: folder of PNGs; it may hold those of earlier imports, and nothing else.
        run_masks: gives the masks that the run itself has of an image; masks that are equal to them
            are left out. None: all are taken, as those of Label Studio, which says itself what
            somebody submitted.
        keep_empty: of COCO, see `read_coco`.

    Raises:
        TruthError: the source cannot be read, does not fit the run or holds no corrected mask of
            it, or the folder holds other things.
        ArtifactError: the manifest is missing or damaged.
    """
    _check_folder(out)
    manifest, classes = load(manifest_dir)
    images = RunImages(manifest, classes)
    report = ImportReport(out, len(manifest))
    readers: dict[Source, _Reader] = {
        "coco": partial(read_coco, keep_empty=keep_empty),
        "label-studio": read_label_studio,
        "cvat": read_cvat,
        "png": read_pngs,
    }
    corrections = readers[form](source, images, report)
    for correction in track(corrections, total=len(manifest), description="Importing masks"):
        image = correction.sample.id
        equals_run = run_masks is not None and is_unchanged(
            correction.labels, run_masks(image), outlined=form in _OUTLINED
        )
        _save(item_path(out, image, ".png"), correction, report, equals_run=equals_run)
    if not report.masks and (report.same_as_run or report.same_as_run_other_stays):
        raise TruthError(
            f"{source}: every mask is as the run of {manifest_dir} has it; correct some first, or "
            "pass --unchanged if somebody looked at them and found them right"
        )
    if not report.masks:
        left_out = [*report.unknown, *report.empty]
        example = f", but e.g. {left_out[0]!r}" if left_out else ""
        raise TruthError(
            f"{source}: holds no corrected mask of an image of {manifest_dir}{example}; correct "
            "some first, or name the run that it belongs to"
        )
    leave_out(out)
    return report


def _save(path: Path, correction: Correction, report: ImportReport, *, equals_run: bool) -> None:
    if os.path.realpath(path) == os.path.realpath(correction.sample.path):
        raise TruthError(f"{path}: is a photo of the run; name another folder for the masks")
    content = label_png_bytes(correction.labels)
    before = path.read_bytes() if path.is_file() else None
    image = correction.sample.id
    if before == content:
        report.unchanged += 1
        if equals_run:
            report.same_as_run_before.append(image)
        return
    if equals_run:  # a mask of an earlier import may be the work of somebody else: it stays
        (report.same_as_run if before is None else report.same_as_run_other_stays).append(image)
        return
    save_label_png(path, correction.labels)
    if before is None:
        report.new += 1
    else:
        report.changed += 1


def _check_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise TruthError(f"{out}: is a file; name a folder")
    paths = out.rglob("*") if out.is_dir() else ()
    visible = (path for path in paths if path.is_file() and not path.name.startswith("."))
    if other := next((path for path in visible if path.suffix != ".png"), None):
        raise TruthError(f"{out}: holds other things, e.g. {other.name!r}; name another folder")
