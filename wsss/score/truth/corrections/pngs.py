"""Corrected masks as index PNGs, named as the images: 0 background, 1 … classes, 255 unsure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wsss.artifacts.watch import files_below
from wsss.data.errors import ImageError
from wsss.data.images.label_png import read_label_png
from wsss.labels.ignore import IGNORED
from wsss.score.truth.corrections.images import Correction, RunImages
from wsss.score.truth.corrections.report import ImportReport
from wsss.score.truth.errors import TruthError


def read_pngs(source: Path, images: RunImages, report: ImportReport) -> Iterator[Correction]:
    """The masks of a folder, and of the folders in it.

    Args:
        report: counts what is left out.

    Raises:
        TruthError: there is no such folder, or a PNG does not fit the run.
    """
    if not source.is_dir():
        raise TruthError(f"{source}: no such folder; expected a folder of index PNGs, <id>.png")
    paths = sorted(entry.path for entry in files_below(source) if entry.name.endswith(".png"))
    for path in map(Path, paths):
        sample = images.find(path.relative_to(source).as_posix())
        if sample is None:
            report.unknown.append(str(path))
            continue
        try:
            labels = read_label_png(path)
        except ImageError as error:
            raise TruthError(str(error)) from None
        images.check_size(sample, labels.shape, str(path))
        highest = int(labels[labels != IGNORED].max(initial=0))
        if highest >= images.label_count:
            raise TruthError(
                f"{path}: has label {highest}, but the classes of the run end at "
                f"{images.label_count - 1}; correct the mask"
            )
        yield Correction(sample, labels)
