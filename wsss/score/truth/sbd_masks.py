"""SegmentationClassAug: the masks of trainaug, which papers pass on, from their official sources.

An image that VOC has outlined gets VOC's mask, with its void borders; any other gets that of the
Semantic Boundaries Dataset (``cls/<id>.mat``), which has no void.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from scipy.io import loadmat

from wsss.artifacts.atomic import remove_abandoned, write_one_of_many
from wsss.artifacts.progress import track
from wsss.data.counted import first_names
from wsss.data.datasets.classes import class_list
from wsss.data.datasets.voc import AUGMENTED_MASKS, MASKS, list_ids
from wsss.data.images.label_png import save_label_png
from wsss.errors import raise_unless_about
from wsss.score.truth.errors import TruthError


@dataclass(frozen=True)
class SbdReport:
    """Where the masks of a list came from."""

    folder: Path
    voc: int
    sbd: int
    present: int
    """Files that existed before and were not touched."""

    def __str__(self) -> str:
        return (
            f"{self.voc + self.sbd + self.present} masks in {self.folder}: {self.present} were "
            f"there, {self.voc} are VOC's, {self.sbd} SBD's"
        )


def write_sbd_masks(
    voc: Path, sbd: Path, *, name: str = "trainaug", out: Path | None = None
) -> SbdReport:
    """Write the masks of a list; existing ones are not touched, unless they are empty.

    Args:
        voc: folder of VOC 2012.
        sbd: the folder ``dataset`` of the Semantic Boundaries Dataset, with ``cls/``.
        name: of the list, or a text file.
        out: folder of the PNGs; None: ``SegmentationClassAug`` of VOC's folder.

    Raises:
        DataError: the list is missing.
        TruthError: images have a mask in neither, all listed together; or a file is damaged.
    """
    folder = out or voc / AUGMENTED_MASKS
    targets = {image: folder / f"{image}.png" for image in list_ids(name, voc)}
    of_voc = {image: voc / MASKS / f"{image}.png" for image in targets}
    of_sbd = {image: sbd / "cls" / f"{image}.mat" for image in targets}
    todo = [image for image, path in targets.items() if not _is_written(path)]
    missing = [i for i in todo if not of_voc[i].is_file() and not of_sbd[i].is_file()]
    if missing:
        raise TruthError(
            f"{len(missing)} of {len(targets)} images have a mask neither in {voc / MASKS} nor in "
            f"{sbd / 'cls'}: {first_names(missing)}"
        )
    if folder.is_dir():
        remove_abandoned(folder)
    from_voc = 0
    for image in track(todo, total=len(todo), description="masks"):
        if of_voc[image].is_file():
            write_one_of_many(targets[image], of_voc[image].read_bytes())
            from_voc += 1
        else:
            save_label_png(targets[image], read_sbd(of_sbd[image]))
    return SbdReport(folder, from_voc, len(todo) - from_voc, len(targets) - len(todo))


def _is_written(path: Path) -> bool:
    """Whether a mask is there; a power cut may leave an empty file."""
    return path.is_file() and path.stat().st_size > 0


def read_sbd(path: Path) -> UInt8[np.ndarray, "height width"]:
    """The label map of one of SBD's ``cls/*.mat``: 0 background, 1 … 20 VOC's classes.

    Raises:
        TruthError: damaged, or of other contents.
    """
    try:
        stored = loadmat(path, variable_names=["GTcls"])["GTcls"][0, 0]["Segmentation"]
        labels = np.asarray(stored, np.int64)
    except Exception as error:  # its reader raises anything from zlib.error to KeyError
        if not isinstance(error, MemoryError):  # the file may ask for any amount
            raise_unless_about(path, error)
        raise TruthError(f"{path}: is none of SBD's cls/*.mat ({error!r})") from None
    highest = len(class_list("voc").names)
    if labels.ndim != 2 or not np.isin(labels, np.arange(highest + 1)).all():
        raise TruthError(f"{path}: Segmentation is no map of labels 0 … {highest}")
    return np.ascontiguousarray(labels, np.uint8)
