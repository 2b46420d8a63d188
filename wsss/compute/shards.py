"""How many parts a split has, and should have: ``shards: auto``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

IMAGES_PER_PART: Final = 670
"""On a CPU: some minutes to an hour of work, of which an interruption loses no more."""
IMAGES_PER_GPU_PART: Final = 4000
"""On a GPU: about a minute of work, beside which 20 s to start a job are bearable."""
_PART = re.compile(r"(\d+)-of-([1-9]\d{0,5})")
_FIRST_PRODUCTS = ("cams", "truth_masks")


def suitable_shards(images: int, gpus: int) -> int:
    """Enough parts for a few minutes of work each; where there are several GPUs, one for each.

    Args:
        images: of the training split, which rarely is the smaller one.
        gpus: on which jobs may compute; 0: they compute on the CPU.
    """
    small = math.ceil(images / IMAGES_PER_PART)
    large = math.ceil(images / IMAGES_PER_GPU_PART)
    return max(1, max(large, min(gpus, small)) if gpus else small)


def parts_on_disk(name: str) -> int:
    """The number of the newest parts of a run, or of those with which it may share products.

    A run that has parts keeps their number. So it goes on, and can be verified, on any machine.

    Args:
        name: of the run, whose results lie in ``results/<name>`` or, where it is one of several,
            in ``results/<first>/<second>`` for ``<first>.<second>``.

    Returns:
        0 where there are none.
    """
    folders = [name[: dot.start()] for dot in re.finditer(r"\.", name)]
    for folder in reversed([*folders, name]):
        if parts := list(_parts(Path("results", folder))):
            return max(parts)[1]
    return 0


def part_of(stem: str) -> tuple[int, int] | None:
    """Number and count of ``<number>-of-<count>``; None of another name."""
    match = _PART.fullmatch(stem)
    return (int(match[1]), int(match[2])) if match else None


def _parts(folder: Path) -> Iterator[tuple[float, int]]:
    """Time and number of the parts below the folder of a run, and of runs one level below."""
    for product in _FIRST_PRODUCTS:
        for pattern in (f"{product}/*/*.h5", f"*/{product}/*/*.h5"):
            for path in folder.glob(pattern):
                if part := part_of(path.stem):
                    try:
                        yield path.stat().st_mtime, part[1]
                    except OSError:  # just replaced
                        continue
