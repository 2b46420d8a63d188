"""Writes the demo data set to disk in VOC's folder layout, with tags in a CSV file."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from wsss.artifacts.atomic import atomic_path
from wsss.data.datasets.words import DEMO_NAMES
from wsss.demo.scenes import Scene, render_scene

VERSION: Final = 2
"""Raise it when the drawings change, so that folders made before are made anew."""
RECORD: Final = "demo.json"
_ENTRIES: Final = frozenset(
    {"JPEGImages", "SegmentationClass", "ImageSets", "tags.csv", "classes.txt", RECORD}
)


def voc_palette() -> list[int]:
    """Return VOC's 256 colours as 768 numbers; colour ``i`` spreads the bits of ``i``."""
    palette = np.zeros((256, 3), dtype=int)
    for index in range(256):
        rest = index
        for bit in range(7, -1, -1):
            for channel in range(3):
                palette[index, channel] |= ((rest >> channel) & 1) << bit
            rest >>= 3
    return [int(value) for value in palette.ravel()]


def generate(
    root: Path, *, seed: int = 0, train: int = 240, val: int = 80, progress: bool = False
) -> None:
    """Write ``train`` + ``val`` scenes below ``root``; the same arguments give the same bytes.

    A folder that already holds them (see its ``demo.json``) is left alone, one with other
    parameters is replaced, and a folder that is not a demo is refused.

    Args:
        root: folder of the data set; made in a temporary sibling and then renamed.
        seed: of the scenes, not negative.
        train: number of training images, at least 1.
        val: number of held-out images, at least 1.
        progress: show a bar.

    Raises:
        ValueError: if a number is out of range.
        FileExistsError: if ``root`` exists and was not made by this function.
    """
    if seed < 0 or train < 1 or val < 1:
        raise ValueError(f"need seed >= 0, train >= 1, val >= 1; got {seed}, {train}, {val}")
    root = Path(root).resolve()
    record = {"version": VERSION, "seed": seed, "train": train, "val": val}
    if root.exists() and any(root.iterdir()):
        if _record(root) == record:
            return
        if not _is_demo(root):
            raise FileExistsError(
                f"{root} is not empty and not a demo data set; choose another folder"
            )
    with atomic_path(root) as temporary:
        _write(temporary, record, progress)


def _record(root: Path) -> dict[str, int] | None:
    try:
        found = json.loads((root / RECORD).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _is_demo(root: Path) -> bool:
    """Tell whether `generate` made ``root``, which Snakemake may have robbed of its record."""
    strangers = {path.name for path in root.iterdir()} - _ENTRIES
    listed = root / "classes.txt"
    names = listed.read_text().split() if listed.is_file() else []
    return not strangers and names == list(DEMO_NAMES)


def _write(root: Path, record: dict[str, int], progress: bool) -> None:
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    palette = voc_palette()
    rows = ["image,tags"]
    jobs = [(split, index) for split in ("train", "val") for index in range(record[split])]
    listed: dict[str, list[str]] = {"train": [], "val": []}
    for split, index in _tracked(jobs, progress):
        scene = render_scene(record["seed"], split, index)
        name = f"{split}_{index:04d}"
        _write_scene(root, name, scene, palette)
        listed[split].append(name)
        rows.append(f"{name},{';'.join(scene.tags)}")
    for split, names in listed.items():
        path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        path.write_text("".join(f"{name}\n" for name in names))
    (root / "tags.csv").write_text("".join(f"{row}\n" for row in rows))
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in DEMO_NAMES))
    (root / RECORD).write_text(json.dumps(record, indent=2) + "\n")


def _write_scene(root: Path, name: str, scene: Scene, palette: list[int]) -> None:
    picture = Image.fromarray(scene.image)
    _save(picture, root / "JPEGImages" / f"{name}.jpg", "JPEG", quality=95, subsampling=0)
    mask = Image.fromarray(scene.mask)
    mask.putpalette(palette)  # turns it into mode P without touching the indices
    _save(mask, root / "SegmentationClass" / f"{name}.png", "PNG", optimize=False)


def _save(picture: Image.Image, path: Path, kind: str, **options: Any) -> None:
    """By way of memory: see `wsss.artifacts.atomic.write_bytes`."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    path.write_bytes(buffer.getvalue())


def _tracked(jobs: list[tuple[str, int]], progress: bool) -> Iterable[tuple[str, int]]:
    if not progress:
        return jobs
    from rich.progress import track

    return track(jobs, description="drawing scenes")
