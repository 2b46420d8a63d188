"""Ground truth of each kind of data set; the only place in the package that opens pixel labels.

============ ===================================================================================
demo, voc    ``<root>/SegmentationClass/<id>.png``; the split whose list is called ``…aug``
             (trainaug): ``<root>/SegmentationClassAug/<id>.png``
coco         drawn from the instances JSON, see `wsss.score.truth.coco`; with ``data.masks`` read
             from the PNGs that `wsss.score.truth.coco_masks` drew
folder       ``<data.masks>/<id>.png``, made by hand perhaps for a part of the images only
============ ===================================================================================

Labels: 0 background, k class k - 1, 255 void.
"""

from __future__ import annotations

import functools
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from wsss.artifacts.digest import digest_file, digest_json
from wsss.artifacts.watch import digest_listing
from wsss.config.data import DataConfig
from wsss.config.paths import expand_path
from wsss.data.check.image_headers import present
from wsss.data.datasets.coco import PARTS, part_of
from wsss.data.datasets.voc import MASKS, mask_folder
from wsss.data.errors import ImageError
from wsss.data.images.label_png import read_label_png
from wsss.data.manifest import Manifest
from wsss.score.names import first_names
from wsss.score.truth.coco import RULE, CocoLabels, CocoTruth
from wsss.score.truth.coco_masks import check_drawn, mark_path
from wsss.score.truth.errors import TruthError

_listing = functools.cache(digest_listing)  # the engine asks for each job


@runtime_checkable
class Source(Protocol):
    """Where the truth of an image comes from; small enough to be sent to another process."""

    def read(self) -> UInt8[np.ndarray, "height width"]:
        """Labels in [0, labels) and 255."""
        ...


@dataclass(frozen=True, slots=True)
class PngTruth:
    """Truth in an index PNG; folder and name are separate, since there is one per image."""

    folder: Path
    name: str

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / self.name

    def read(self) -> UInt8[np.ndarray, "height width"]:
        """Read the label map."""
        return read_label_png(self.path)


@dataclass(frozen=True)
class Truth:
    """The ground truth of a split."""

    description: str
    """Which folder, or which rule."""
    sources: dict[str, Source]
    """Image id → its truth, in the order of the manifest; only images that have one."""
    missing: tuple[str, ...]
    """Images without truth; always empty but for the kind ``folder``."""
    files: tuple[Path, ...] = ()
    """Files behind the sources that are no PNGs."""

    def digest(self) -> str:
        """sha256 of ids and of the bytes of every file behind the sources."""
        pngs = {i: digest_file(s.path) for i, s in self.sources.items() if isinstance(s, PngTruth)}
        return digest_json([list(self.sources), pngs, [digest_file(path) for path in self.files]])


def find_truth(data: DataConfig, manifest: Manifest, split: str) -> Truth:
    """Find the truth of every image of a split, without reading it.

    Args:
        data: the section of the configuration.
        manifest: the images of the split.
        split: ``train`` or ``val``.

    Raises:
        TruthError: none is configured, or images have none; they are listed together. In a folder
            of photos a part may go without: those are left out and listed in `Truth.missing`.
    """
    if not data.has_truth:
        raise TruthError(
            "no ground truth is configured: set data.masks to a folder of label PNGs, "
            "or leave scoring out"
        )
    if data.kind == "coco":
        return _drawn_coco(data, manifest) if data.masks else _coco(data, manifest)
    folder = png_folder(data, split)
    sources: dict[str, Source] = {}
    missing: list[str] = []
    for sample in manifest:
        if name := _png_name(folder, sample.id):
            sources[sample.id] = PngTruth(folder, name)
        else:
            missing.append(sample.id)
    if missing and (data.kind != "folder" or not sources):
        raise TruthError(_list_missing(missing, len(manifest), f"{folder}/<id>.png"))
    return Truth(str(folder), sources, tuple(missing))


def png_folder(data: DataConfig, split: str) -> Path:
    """The folder of the truth PNGs of a split (any kind but COCO)."""
    if data.kind == "folder":
        return expand_path(data.masks)
    name = data.train_list if split == "train" else data.val_list
    folder = mask_folder(name) if data.kind == "voc" else MASKS
    return expand_path(data.root) / folder


def truth_state(data: DataConfig, split: str) -> str:
    """A text that changes when truth PNGs are added, removed or edited; the workflow watches it.

    Empty where another file says so: a rule draws the demo's data set, and COCO's truth is in the
    file that ingest reads, or drawn from it by a rule (see `truth_files`).
    """
    if data.kind in {"demo", "coco"} or not data.has_truth:
        return ""
    return _listing(png_folder(data, split), ".png")


def truth_files(data: DataConfig, split: str) -> list[Path]:
    """Files that a rule must have made before a split can be scored: the marks of COCO masks."""
    if data.kind != "coco" or not data.masks:
        return []
    part = part_of(data.train_list if split == "train" else data.val_list)
    return [mark_path(expand_path(data.masks), name) for name in ([part] if part else PARTS)]


def read_truth(source: Source, image: str, height: int, width: int) -> UInt8[np.ndarray, "h w"]:
    """Read one image's truth and check that it fits the image.

    Raises:
        TruthError: the truth cannot be read, or has another size than the image.
    """
    if isinstance(source, CocoTruth) and (source.height, source.width) != (height, width):
        raise TruthError(_other_size(source, image, (source.height, source.width), (height, width)))
    try:
        truth = source.read()
    except (ImageError, TruthError) as error:
        where = "the instances JSON: " if isinstance(source, CocoTruth) else ""
        raise TruthError(f"{where}the truth of {image!r} cannot be read: {error}") from None
    if truth.shape != (height, width):
        raise TruthError(_other_size(source, image, truth.shape, (height, width)))
    return truth


def _coco(data: DataConfig, manifest: Manifest) -> Truth:
    """A split may mix images of both parts; the JSON is that of the folder an image lies in."""
    folder = expand_path(data.root) / "annotations"
    paths = {sample.id: folder / f"instances_{sample.path.parent.name}.json" for sample in manifest}
    labels = {path: CocoLabels(path) for path in dict.fromkeys(paths.values())}
    truths = {sample.id: labels[paths[sample.id]].find(sample.path.name) for sample in manifest}
    missing = [image for image, truth in truths.items() if truth is None]
    files = ", ".join(map(str, labels))
    if missing:
        raise TruthError(_list_missing(missing, len(manifest), files))
    sources: dict[str, Source] = {i: truth for i, truth in truths.items() if truth}
    return Truth(f"{files} ({RULE})", sources, (), tuple(labels))


def _drawn_coco(data: DataConfig, manifest: Manifest) -> Truth:
    """The same label maps from PNGs; each part must have been drawn from the JSON that is there."""
    folder, root = expand_path(data.masks), expand_path(data.root)
    folders = {part: folder / part for part in {sample.path.parent.name for sample in manifest}}
    for part in sorted(folders):
        check_drawn(folder, part.removesuffix("2014"), root)
    sources = {s.id: PngTruth(folders[s.path.parent.name], f"{s.path.stem}.png") for s in manifest}
    existing = present(source.path for source in sources.values())
    missing = [image for image, source in sources.items() if source.path not in existing]
    if missing:
        raise TruthError(_list_missing(missing, len(sources), str(folder)))
    return Truth(f"{folder} ({RULE})", dict(sources), ())


def _png_name(folder: Path, image: str) -> str | None:
    """The file of an id; ids are in composed Unicode form, file names may be in the other one."""
    names = (f"{image}.png", f"{unicodedata.normalize('NFD', image)}.png")
    return next((name for name in names if (folder / name).is_file()), None)


def _other_size(source: Source, image: str, *shapes: tuple[int, ...]) -> str:
    where = source.path if isinstance(source, PngTruth) else "the instances JSON"
    sides, expected = (" x ".join(map(str, reversed(shape))) for shape in shapes)
    return (
        f"{where}: the truth of {image!r} is {sides} pixels, its image is {expected}; they must be "
        "equal: replace one of the two files"
    )


def _list_missing(missing: list[str], total: int, where: str) -> str:
    names = first_names(list(map(repr, missing)))
    return (
        f"{where}: {len(missing)} of {total} images have no ground truth: {names}; "
        "add it, or score a list of images that have it"
    )
