"""Check whether a folder contains a published data set in full."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from wsss.config.data import DataConfig
from wsss.data.check.coco import check_coco
from wsss.data.check.report import Report
from wsss.data.check.voc import check_voc
from wsss.data.datasets.coco import parts_of
from wsss.data.datasets.files import IMAGES, configured_lists, nested_hint
from wsss.data.errors import DataError

CHECKS: dict[str, Callable[..., Report]] = {"voc": check_voc, "coco": check_coco}


def check_configured(data: DataConfig, *, decode: bool = False, workers: int = 1) -> Report:
    """Check only what a configuration reads: its lists or parts, and their tags.

    Args:
        decode: decode every image in full, instead of reading headers.

    Raises:
        DataError: the folder does not exist or has another layout, or the contents of the data set
            are not known.
    """
    if data.kind == "voc":
        lists = [name for _, name in configured_lists(data)]
        return check_voc(data.root, lists=lists, tags=data.tags, decode=decode, workers=workers)
    if data.kind == "coco":
        return check_coco(data.root, parts=parts_of(data), decode=decode, workers=workers)
    raise DataError(
        f"data.kind: {data.kind}: only voc and coco have known contents to check; `wsss ingest` "
        "decodes every image of any data set and lists what cannot be used"
    )


def guess_kind(root: Path) -> Literal["voc", "coco"]:
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
    raise DataError(
        f"{root}: is neither VOC's layout (has no {IMAGES}) nor COCO's (has no annotations)"
        f"{nested_hint(root, IMAGES)}"
    )
