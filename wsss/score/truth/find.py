"""Ground truth of each kind of data set; the only place in the package that opens pixel labels.

============ ===================================================================================
demo, voc    ``<root>/SegmentationClass/<id>.png``; the split whose list is called ``…aug``
             (trainaug): ``<root>/SegmentationClassAug/<id>.png``
coco         drawn from the instances JSON, see `wsss.score.truth.coco`; with ``data.masks`` read
             from the PNGs that `wsss.score.truth.coco_masks` drew of it
folder       ``<data.masks>/<id>.png``, made by hand perhaps for a part of the images only
============ ===================================================================================

Labels: 0 background, k class k - 1, 255 void.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from wsss.artifacts.digest import digest_listing
from wsss.config.model import Config
from wsss.config.paths import expand_path
from wsss.data.check.image_headers import present
from wsss.data.datasets.coco import PARTS, part_of
from wsss.data.datasets.voc import MASKS, mask_folder
from wsss.data.errors import ImageError
from wsss.data.images.label_png import read_label_png
from wsss.data.manifest import Manifest
from wsss.score.truth.coco import RULE, CocoLabels, CocoTruth
from wsss.score.truth.coco_masks import check_drawn, mark_path
from wsss.score.truth.errors import TruthError

_NAMED = 8


@runtime_checkable
class Source(Protocol):
    """Where one image's truth comes from; small enough to be sent to another process."""

    def read(self) -> UInt8[np.ndarray, "height width"]:
        """Labels in [0, labels) and 255."""
        ...


@dataclass(frozen=True, slots=True)
class PngTruth:
    """Truth in an index PNG; folder and name apart, since there is one for every image."""

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


def has_truth(config: Config) -> bool:
    """Whether the configuration names any ground truth (a folder of photos may have none)."""
    return config.data.kind != "folder" or bool(config.data.masks)


def find_truth(config: Config, manifest: Manifest, split: str) -> Truth:
    """Find the truth of every image of a split, without reading it.

    Args:
        config: reads the section ``data``.
        manifest: the images of the split.
        split: ``train`` or ``val``.

    Raises:
        TruthError: none is configured, or images have none; they are listed together. In a folder
            of photos a part may go without: those are left out and listed in `Truth.missing`.
    """
    if not has_truth(config):
        raise TruthError(
            "no ground truth is configured: set data.masks to a folder of label PNGs, "
            "or leave scoring out"
        )
    if config.data.kind == "coco":
        return _drawn_coco(config, manifest) if config.data.masks else _coco(config, manifest)
    folder = png_folder(config, split)
    sources: dict[str, Source] = {}
    missing: list[str] = []
    for sample in manifest:
        if name := _png(folder, sample.id):
            sources[sample.id] = PngTruth(folder, name)
        else:
            missing.append(sample.id)
    if missing and (config.data.kind != "folder" or not sources):
        raise TruthError(_list_missing(missing, len(manifest), f"{folder}/<id>.png"))
    return Truth(str(folder), sources, tuple(missing))


def png_folder(config: Config, split: str) -> Path:
    """The folder of the truth PNGs of a split (any kind but COCO)."""
    if config.data.kind == "folder":
        return expand_path(config.data.masks)
    name = config.data.train_list if split == "train" else config.data.val_list
    folder = mask_folder(name) if config.data.kind == "voc" else MASKS
    return expand_path(config.data.root) / folder


def truth_state(config: Config, split: str) -> str:
    """A text that changes when truth PNGs are added, removed or edited; the workflow watches it.

    Empty where something else tells: the demo's data set is drawn by a rule, and COCO's truth is in
    the file that ingest reads, or drawn from it by a rule (see `truth_files`).
    """
    if config.data.kind in {"demo", "coco"} or not has_truth(config):
        return ""
    return digest_listing(png_folder(config, split), ".png")


def truth_files(config: Config, split: str) -> list[Path]:
    """Files that a rule must have made before a split can be scored: the marks of COCO masks."""
    if config.data.kind != "coco" or not config.data.masks:
        return []
    part = part_of(config.data.train_list if split == "train" else config.data.val_list)
    return [mark_path(expand_path(config.data.masks), one) for one in ([part] if part else PARTS)]


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
        raise TruthError(f"the truth of {image!r} cannot be read: {error}") from None
    if truth.shape != (height, width):
        raise TruthError(_other_size(source, image, truth.shape, (height, width)))
    return truth


def _coco(config: Config, manifest: Manifest) -> Truth:
    """A split may mix images of both parts; the JSON is that of the folder an image lies in."""
    folder = expand_path(config.data.root) / "annotations"
    paths = {sample.id: folder / f"instances_{sample.path.parent.name}.json" for sample in manifest}
    labels = {path: CocoLabels(path) for path in dict.fromkeys(paths.values())}
    found = {sample.id: labels[paths[sample.id]].find(sample.path.name) for sample in manifest}
    missing = [image for image, source in found.items() if source is None]
    named = ", ".join(map(str, labels))
    if missing:
        raise TruthError(_list_missing(missing, len(manifest), named))
    return Truth(f"{named} ({RULE})", {i: source for i, source in found.items() if source}, ())


def _drawn_coco(config: Config, manifest: Manifest) -> Truth:
    """The same label maps from PNGs; each part must have been drawn from the JSON that is there."""
    folder, root = expand_path(config.data.masks), expand_path(config.data.root)
    folders = {part: folder / part for part in {sample.path.parent.name for sample in manifest}}
    for part in sorted(folders):
        check_drawn(folder, part.removesuffix("2014"), root)
    sources = {s.id: PngTruth(folders[s.path.parent.name], f"{s.path.stem}.png") for s in manifest}
    there = present(source.path for source in sources.values())
    missing = [image for image, source in sources.items() if source.path not in there]
    if missing:
        raise TruthError(_list_missing(missing, len(sources), str(folder)))
    return Truth(f"{folder} ({RULE})", dict(sources), ())


def _png(folder: Path, image: str) -> str | None:
    """The file of an id; ids are in composed Unicode form, file names may be in the other one."""
    names = (f"{image}.png", f"{unicodedata.normalize('NFD', image)}.png")
    return next((name for name in names if (folder / name).is_file()), None)


def _other_size(source: Source, image: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    where = source.path if isinstance(source, PngTruth) else "the instances JSON"
    sides, expected = (" x ".join(map(str, reversed(shape))) for shape in (found, wanted))
    return (
        f"{where}: the truth of {image!r} is {sides} pixels, its image is {expected}; they must be "
        "equal: replace one of the two files"
    )


def _list_missing(missing: list[str], total: int, where: str) -> str:
    named = ", ".join(map(repr, missing[:_NAMED]))
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    return (
        f"{where}: {len(missing)} of {total} images have no ground truth: {named}{more}; "
        "add it, or score a list of images that have it"
    )
