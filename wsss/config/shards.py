"""How many parts a split has: ``shards: auto``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from wsss.compute.planned_gpus import planned_gpus
from wsss.config.base import AUTO
from wsss.config.paths import expand_path

IMAGES_PER_PART: Final = 670
"""On a CPU: some minutes to an hour of work, of which an interruption loses no more."""
IMAGES_PER_GPU_PART: Final = 4000
"""On a GPU: about a minute of work, beside which 20 s to start a job are bearable."""
_KNOWN: Final[Mapping[tuple[str, str], int]] = {
    ("voc", "train"): 1464,
    ("voc", "trainaug"): 10_582,
    ("coco", "train"): 82_783,
    ("coco", "train-with-objects"): 82_081,
}
"""Images by kind of data and list, for lists that are not there yet, or have no file."""
_PART = re.compile(r"\d+-of-([1-9]\d{0,5})")
_FIRST_PRODUCTS = ("cams", "truth_masks")


def auto_shards(name: str, data: Mapping[str, str], device: str) -> int:
    """The number of parts of a run: that of its parts on disk, else one that suits the machine.

    A run that has parts keeps their number. So it goes on, and can be verified, on any machine.

    Args:
        name: of the run, whose results lie in ``results/<name>`` or, where it is one of several,
            in ``results/<first>/<second>`` for ``<first>.<second>``.
        data: see `count_images`.
        device: the configured device.

    Returns:
        At least 1.
    """
    return _parts_on_disk(name) or suitable_shards(count_images(data), planned_gpus(device))


def suitable_shards(images: int, gpus: int) -> int:
    """Enough parts for a few minutes of work each; where there are several GPUs, one for each.

    Args:
        images: of the training split, which rarely is the smaller one.
        gpus: on which jobs may compute; 0: they compute on the CPU.
    """
    small = math.ceil(images / IMAGES_PER_PART)
    large = math.ceil(images / IMAGES_PER_GPU_PART)
    return max(1, max(large, min(gpus, small)) if gpus else small)


def count_images(data: Mapping[str, str]) -> int:
    """Images of the training split: the lines of its list, else what is known of it.

    For a folder these are the rows of its table, those of the held-out split included.

    Args:
        data: ``kind``, ``root``, ``train_list`` and ``tags`` of that section.

    Returns:
        0 where nothing is known, as of a file that is not there.
    """
    kind, name, folder = data["kind"], data["train_list"], expand_path(data["root"])
    if kind == "folder":
        is_auto = data["tags"] == AUTO
        table = folder / "tags.csv" if is_auto else expand_path(data["tags"])
        return max(0, _lines(table, folder / table) - 1)
    path = expand_path(name)
    listed = _lines(folder / "ImageSets" / "Segmentation" / f"{name}.txt", path, folder / path)
    return listed or _KNOWN.get((kind, name), 0)


def _lines(*paths: Path) -> int:
    """Lines that are not empty, of the first of the files that is there; 0 without any."""
    for path in paths:
        try:
            if path.is_file():
                with path.open("rb") as stream:
                    return sum(1 for line in stream if line.strip())
        except (OSError, ValueError):  # the stage that needs the file says what is wrong with it
            continue
    return 0


def _parts_on_disk(name: str) -> int:
    """Of the newest parts of a run, or of the runs with which it may share products; 0: none."""
    folders = [name[: dot.start()] for dot in re.finditer(r"\.", name)]
    for folder in reversed([*folders, name]):
        if parts := list(_parts(Path("results", folder))):
            return max(parts)[1]
    return 0


def _parts(folder: Path) -> Iterator[tuple[float, int]]:
    """Time and number of the parts below the folder of a run, and of runs one level below."""
    for product in _FIRST_PRODUCTS:
        for pattern in (f"{product}/*/*.h5", f"*/{product}/*/*.h5"):
            for path in folder.glob(pattern):
                if match := _PART.fullmatch(path.stem):
                    try:
                        yield path.stat().st_mtime, int(match[1])
                    except OSError:  # just replaced
                        continue
