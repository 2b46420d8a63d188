"""Check whether a folder holds a published data set in full."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from wsss.config.data import DataConfig
from wsss.config.paths import expand_path
from wsss.data.check.coco import check_coco
from wsss.data.check.report import Report
from wsss.data.check.voc import check_voc
from wsss.data.datasets.coco import parts_of
from wsss.data.datasets.voc import IMAGES
from wsss.data.errors import DataError

Kind = Literal["voc", "coco"]
KINDS: dict[str, Kind] = {"voc": "voc", "coco": "coco"}


def check_folder(root: Path, kind: Kind, *, decode: bool = False, workers: int = 1) -> Report:
    """Check everything that papers use of a data set.

    Raises:
        DataError: the folder does not exist, or is of another layout.
    """
    if kind == "voc":
        return check_voc(root, decode=decode, workers=workers)
    return check_coco(root, decode=decode, workers=workers)


def check_configured(data: DataConfig, *, decode: bool = False, workers: int = 1) -> Report:
    """Check what a configuration reads, no more: its lists, or its parts, and their tags.

    Raises:
        DataError: as `check_folder`; or the configuration's data set is no published one.
    """
    root = expand_path(data.root)
    if data.kind == "voc":
        lists = [name for name in (data.train_list, data.val_list) if name]
        return check_voc(root, lists=lists, tags=data.tags, decode=decode, workers=workers)
    if data.kind == "coco":
        return check_coco(root, parts=parts_of(data), decode=decode, workers=workers)
    raise DataError(
        f"data.kind: {data.kind}: only voc and coco have known contents to check; `wsss ingest` "
        "decodes every image of any data set and lists what cannot be used"
    )


def guess_kind(root: Path) -> Kind:
    """VOC or COCO, by the folders in it.

    Raises:
        DataError: it is neither, or does not exist.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    if (root / IMAGES).is_dir():
        return "voc"
    if any((root / name).is_dir() for name in ("annotations", "train2014", "val2014")):
        return "coco"
    inside = next((path.parent for path in sorted(root.glob(f"*/{IMAGES}"))), None)
    hint = f"; did you mean {inside}?" if inside else ""
    raise DataError(
        f"{root}: is neither VOC's layout (has no {IMAGES}) nor COCO's (has no annotations){hint}"
    )
