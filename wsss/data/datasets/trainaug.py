"""The list trainaug, which papers pass on, built from its two official sources.

trainaug = (VOC 2012 train ∪ SBD train ∪ SBD val) without VOC 2012 val: 10,582 ids.
"""

from __future__ import annotations

from pathlib import Path

from wsss.artifacts.atomic import write_text
from wsss.data.datasets.files import read_lines
from wsss.data.datasets.voc import COUNTS, LISTS, list_ids
from wsss.data.errors import DataError


def write_trainaug(voc: Path, sbd: Path, out: Path | None = None) -> tuple[Path, int]:
    """Write the list, sorted.

    Args:
        voc: folder of VOC 2012.
        sbd: the folder ``dataset`` of the Semantic Boundaries Dataset, with train.txt and val.txt.
        out: the file; None: in the folder of VOC's lists.

    Returns:
        The file and its number of ids.

    Raises:
        DataError: a list is missing, or the result does not have 10,582 ids; nothing is written.
    """
    ids = set(list_ids("train", voc))
    for name in ("train.txt", "val.txt"):
        ids.update(line.split()[0] for line in read_lines(sbd / name))
    ids -= set(list_ids("val", voc))
    if len(ids) != COUNTS["trainaug"]:
        raise DataError(
            f"{voc} and {sbd}: their lists give {len(ids)} ids, expected {COUNTS['trainaug']}; "
            f"compare {LISTS}/{{train,val}}.txt ({COUNTS['train']} and {COUNTS['val']} ids) and "
            "SBD's train.txt and val.txt (8498 and 2857) with their official archives"
        )
    path = out or voc / LISTS / "trainaug.txt"
    write_text(path, "".join(f"{image}\n" for image in sorted(ids)))
    return path, len(ids)
