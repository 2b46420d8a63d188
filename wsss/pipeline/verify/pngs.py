"""PNGs of label maps, compared with the shard that they come from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wsss.artifacts.shard import Item, Shard
from wsss.data.errors import ImageError
from wsss.data.images.label_png import read_label_png
from wsss.masks.store import PRODUCTS as LABELS
from wsss.masks.store import png_path


def png_differences(folder: Path, shard: Shard) -> Iterator[str]:
    """PNGs that do not show what the shard holds."""
    paths = {path for name in LABELS for path in (folder / name).rglob("*.png")}
    for item in shard:
        for name in LABELS:
            path = png_path(folder / name, item.id)
            paths.discard(path)
            if problem := _png_problem(path, item, name):
                yield problem
    for path in sorted(paths):
        yield f"{path.relative_to(folder)} is of no image of the shard"


def _png_problem(path: Path, item: Item, name: str) -> str:
    shown = f"{name}/{item.id}.png"
    if not path.is_file():
        return f"{shown} is not there"
    try:
        labels = read_label_png(path)
    except ImageError as error:
        return f"{shown} {error.reason}"
    stored = item.arrays.get(name)
    if stored is None or labels.shape != stored.shape or (labels != stored).any():
        return f"{shown} was edited or replaced: it differs from the shard"
    return ""
