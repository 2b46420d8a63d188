"""Writes the demo data set to disk in VOC's folder layout, with tags in a CSV file."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Final

from PIL import Image

from wsss.artifacts.atomic import atomic_path
from wsss.artifacts.digest import digest_json
from wsss.artifacts.progress import track
from wsss.artifacts.watch import digest_listing, stamp
from wsss.data.datasets.words import DEMO_NAMES
from wsss.data.images.label_png import label_png_bytes
from wsss.demo.scenes import Scene, render_scene

VERSION: Final = 2
"""Raise it when the drawings change, so that older folders are replaced."""
RECORD: Final = "demo.json"
_TRUTH: Final = "SegmentationClass"
_ENTRIES: Final = frozenset({"JPEGImages", _TRUTH, "ImageSets", "tags.csv", "classes.txt", RECORD})


def generate(
    root: Path, *, seed: int = 0, train: int = 240, val: int = 80, progress: bool = False
) -> None:
    """Write ``train`` + ``val`` scenes below ``root``; the same arguments give the same bytes.

    A folder that already contains them (see its ``demo.json``) stays as it is. A demo with other
    parameters is replaced, as is one whose files were removed or exchanged; any other folder is
    refused.

    Args:
        root: folder of the data set; written to a temporary sibling and then renamed.
        seed: seed of the scenes, not negative.
        train: number of training images, at least 1.
        val: number of held-out images, at least 1.

    Raises:
        ValueError: a seed or count is out of range.
        FileExistsError: ``root`` exists and was not written by this function.
    """
    if seed < 0 or train < 1 or val < 1:
        raise ValueError(f"need seed >= 0, train >= 1, val >= 1; got {seed}, {train}, {val}")
    root = Path(root).resolve()
    record = {"version": VERSION, "seed": seed, "train": train, "val": val}
    if root.exists() and any(root.iterdir()):
        if is_as_drawn(root) and record.items() <= _record(root).items():
            return
        if not _is_demo(root):
            raise FileExistsError(
                f"{root} is not empty and not a demo data set; choose another folder"
            )
    with atomic_path(root) as temporary:
        _write(temporary, record, progress)


def is_as_drawn(root: Path) -> bool:
    """Whether the files that ``demo.json`` stands for are there; the folder of pixel labels may be
    elsewhere, so that no stage before the scores can read them."""
    listings = _listings(root)
    if not (root / _TRUTH).is_dir():
        del listings[_TRUTH]
    return listings.items() <= _record(root).items()


def _listings(root: Path) -> dict[str, str]:
    """Digests of names and sizes of what is drawn."""
    folders = ("JPEGImages", "ImageSets", _TRUTH)
    listings = {name: digest_listing(root / name, times=False) for name in folders}
    return listings | {"tags.csv": digest_json(stamp(root / "tags.csv")[:1])}


def _record(root: Path) -> dict[str, object]:
    try:
        record = json.loads((root / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _is_demo(root: Path) -> bool:
    """Whether `generate` wrote ``root``, whose record Snakemake may have removed."""
    others = {path.name for path in root.iterdir()} - _ENTRIES
    class_file = root / "classes.txt"
    names = class_file.read_text(encoding="utf-8").split() if class_file.is_file() else []
    return not others and names == list(DEMO_NAMES)


def _write(root: Path, record: dict[str, int], progress: bool) -> None:
    for folder in ("JPEGImages", _TRUTH, "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    rows = ["image,tags"]
    jobs = [(split, index) for split in ("train", "val") for index in range(record[split])]
    listed: dict[str, list[str]] = {"train": [], "val": []}
    tracked = track(jobs, total=len(jobs), description="drawing scenes") if progress else jobs
    for split, index in tracked:
        scene = render_scene(record["seed"], split, index)
        name = f"{split}_{index:04d}"
        _write_scene(root, name, scene)
        listed[split].append(name)
        rows.append(f"{name},{';'.join(scene.tags)}")
    for split, names in listed.items():
        path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    (root / "tags.csv").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in DEMO_NAMES), encoding="utf-8")
    content = record | _listings(root)
    (root / RECORD).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_scene(root: Path, name: str, scene: Scene) -> None:
    buffer = io.BytesIO()  # see `wsss.artifacts.atomic.write_bytes`
    Image.fromarray(scene.image).save(buffer, "JPEG", quality=95, subsampling=0)
    (root / "JPEGImages" / f"{name}.jpg").write_bytes(buffer.getvalue())
    (root / _TRUTH / f"{name}.png").write_bytes(label_png_bytes(scene.mask))
