"""Ground truth of each kind of data set; the only place in the package that opens pixel labels.

============ ===================================================================================
demo, voc    ``<root>/SegmentationClass/<id>.png``; the split whose list is called ``…aug``
             (trainaug): ``<root>/SegmentationClassAug/<id>.png``
coco         drawn from the instances JSON by the rule ``data.coco_truth``, see
             `wsss.score.truth.coco`; with ``data.masks`` read from the PNGs that
             `wsss.score.truth.coco_masks` drew; with the rule ``png`` the PNGs in ``data.masks``
             that others made, see `wsss.score.truth.coco_pngs`
folder       ``<data.masks>/<id>.png``, made by hand perhaps for a part of the images only
============ ===================================================================================

Labels: 0 background, k class k - 1, 255 void.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from wsss.artifacts.digest import digest_file, digest_files, digest_json
from wsss.artifacts.watch import digest_listing
from wsss.config.data import COCO_RULES, DataConfig
from wsss.config.paths import expand_path
from wsss.data.check.image_headers import present
from wsss.data.counted import first_names
from wsss.data.datasets.candidates import Candidate
from wsss.data.datasets.classes import ClassList
from wsss.data.datasets.coco import PARTS, part_of
from wsss.data.datasets.voc import MASKS, mask_folder
from wsss.data.errors import ImageError
from wsss.data.manifest import Manifest, Sample
from wsss.labels.ignore import IGNORED
from wsss.score.truth.coco import CocoLabels, CocoTruth
from wsss.score.truth.coco_masks import check_drawn, mark_path, part_folder
from wsss.score.truth.coco_pngs import find_pngs
from wsss.score.truth.errors import TruthError
from wsss.score.truth.sources import PngTruth, Source

_listing = functools.cache(digest_listing)  # the engine asks for each job


@dataclass(frozen=True)
class Truth:
    """The ground truth of a split."""

    description: str
    """Which folder, or which rule."""
    sources: dict[str, Source]
    """Image id → its truth, in the order of the manifest; only images that have one."""
    missing: tuple[str, ...] = ()
    """Images without truth; always empty but for the kind ``folder``."""
    files: tuple[Path, ...] = ()
    """Files behind the sources that are no PNGs."""
    rule: str = ""
    """Of COCO, ``data.coco_truth``."""

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
        return find_coco(data, manifest.samples)
    folder = png_folder(data, split)
    sources = named_pngs(folder, [sample.id for sample in manifest])
    missing = [sample.id for sample in manifest if sample.id not in sources]
    if missing and (data.kind != "folder" or not sources):
        raise TruthError(_list_missing(missing, len(manifest), f"{folder}/<id>.png"))
    return Truth(str(folder), dict(sources), tuple(missing))


def named_pngs(folder: Path, images: Iterable[str]) -> dict[str, PngTruth]:
    """The PNG of each image in a folder, by the id; images that have none are left out.

    Args:
        folder: ``<folder>/<id>.png``.
        images: ids.
    """
    names = {image: _png_name(folder, image) for image in images}
    return {image: PngTruth(folder, name) for image, name in names.items() if name}


def corrections_digest(corrected: str, images: Iterable[str]) -> str:
    """The digest of the corrected masks of training images, as it stands in the shard's inputs.

    Args:
        corrected: ``retrain.corrected``.
        images: ids of all training images.
    """
    sources = named_pngs(expand_path(corrected), images)
    return digest_files({image: source.path for image, source in sources.items()})


def find_coco(data: DataConfig, photos: Collection[Sample | Candidate]) -> Truth:
    """Find the truth of images of COCO, by the rule of the configuration, without reading it.

    Args:
        data: of kind ``coco``.
        photos: images of either part, which the name of their folder tells.

    Raises:
        TruthError: images have none, or the PNGs were not drawn in full from the JSON.
    """
    if data.coco_truth == "png":
        return _coco_pngs(data, photos)
    return _drawn_coco(data, photos) if data.masks else _coco(data, photos)


def png_folder(data: DataConfig, split: str) -> Path:
    """The folder of the truth PNGs of a split; of COCO that of both."""
    if data.kind in ("folder", "coco"):
        return expand_path(data.masks)
    name = data.train_list if split == "train" else data.val_list
    folder = mask_folder(name) if data.kind == "voc" else MASKS
    return expand_path(data.root) / folder


def truth_state(data: DataConfig, split: str) -> str:
    """A text that changes when truth PNGs are added, removed or edited; the workflow watches it.

    Empty where another file says so: a rule draws the demo's data set, and what is drawn of COCO's
    truth is in the file that ingest reads, or drawn from it by a rule (see `truth_files`).
    """
    is_drawn = data.kind == "demo" or (data.kind == "coco" and data.coco_truth != "png")
    if is_drawn or not data.has_truth:
        return ""
    return _listing(png_folder(data, split), ".png")


def truth_files(data: DataConfig, split: str) -> list[Path]:
    """Files that a rule must have made before a split can be scored: the marks of COCO masks."""
    if data.kind != "coco" or not data.masks or data.coco_truth == "png":
        return []
    part = part_of(data.train_list if split == "train" else data.val_list)
    masks = expand_path(data.masks)
    return [mark_path(masks, name, data.coco_truth) for name in ([part] if part else PARTS)]


def read_truth(
    source: Source, image: str, height: int, width: int, labels: int = IGNORED
) -> UInt8[np.ndarray, "h w"]:
    """Read one image's truth and check that it fits the image.

    Args:
        labels: number of labels, background included.

    Raises:
        TruthError: the truth cannot be read, has another size than the image, or a label above
            those of the class list.
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
    highest = int(truth.max(where=truth != IGNORED, initial=0))
    if highest >= labels:
        raise TruthError(
            f"{_where(source)}: the truth of {image!r} has label {highest}, but the class list "
            f"ends at {labels - 1}; correct the mask or data.classes"
        )
    return truth


def read_labels(truth: Truth, sample: Sample, classes: ClassList) -> UInt8[np.ndarray, "h w"]:
    """One image's truth, as a map of labels that the classes have; 255 where it has none.

    Raises:
        TruthError: see `read_truth`.
    """
    source = truth.sources.get(sample.id)
    if source is None:
        return np.full((sample.height, sample.width), IGNORED, np.uint8)
    return read_truth(source, sample.id, sample.height, sample.width, classes.label_count)


def _coco(data: DataConfig, photos: Collection[Sample | Candidate]) -> Truth:
    """A split may mix images of both parts; the JSON is that of the folder an image lies in."""
    folder, rule = expand_path(data.root) / "annotations", data.coco_truth
    paths = {photo.id: folder / f"instances_{photo.path.parent.name}.json" for photo in photos}
    labels = {
        path: CocoLabels(path, rule, max_pixels=data.max_pixels)
        for path in dict.fromkeys(paths.values())
    }
    truths = {photo.id: labels[paths[photo.id]].find(photo.path.name) for photo in photos}
    missing = [image for image, truth in truths.items() if truth is None]
    files = ", ".join(map(str, labels))
    if missing:
        raise TruthError(_list_missing(missing, len(photos), files))
    sources: dict[str, Source] = {i: truth for i, truth in truths.items() if truth}
    return Truth(_described(files, data), sources, (), tuple(labels), rule)


def _drawn_coco(data: DataConfig, photos: Collection[Sample | Candidate]) -> Truth:
    """The same label maps from PNGs; each part must have been drawn from the JSON that is there."""
    masks, rule = expand_path(data.masks), data.coco_truth
    parts = sorted({photo.path.parent.name.removesuffix("2014") for photo in photos})
    for part in parts:
        check_drawn(masks, part, rule, expand_path(data.root))
    folders = {f"{part}2014": part_folder(masks, part, rule) for part in parts}
    sources = {p.id: PngTruth(folders[p.path.parent.name], f"{p.path.stem}.png") for p in photos}
    existing = present(source.path for source in sources.values())
    missing = [image for image, source in sources.items() if source.path not in existing]
    if missing:
        raise TruthError(_list_missing(missing, len(sources), str(masks / rule)))
    return Truth(_described(str(masks / rule), data), dict(sources), rule=rule)


def _coco_pngs(data: DataConfig, photos: Collection[Sample | Candidate]) -> Truth:
    """PNGs that others made."""
    masks = expand_path(data.masks)
    sources = find_pngs(masks, {photo.id: photo.path for photo in photos})
    missing = [photo.id for photo in photos if photo.id not in sources]
    if missing:
        where = f"{masks} and its folders train2014, val2014, train, val"
        raise TruthError(_list_missing(missing, len(photos), where))
    description = f"{len(sources)} {_described(f'PNGs in {masks}', data)}"
    return Truth(description, dict(sources), rule=data.coco_truth)


def _described(where: str, data: DataConfig) -> str:
    return f"{where} ({data.coco_truth}: {COCO_RULES[data.coco_truth]})"


def _png_name(folder: Path, image: str) -> str | None:
    """The file of an id; ids are in composed Unicode form, file names may be in the other one."""
    names = (f"{image}.png", f"{unicodedata.normalize('NFD', image)}.png")
    return next((name for name in names if (folder / name).is_file()), None)


def _other_size(source: Source, image: str, *shapes: tuple[int, ...]) -> str:
    sides, expected = (" x ".join(map(str, reversed(shape))) for shape in shapes)
    return (
        f"{_where(source)}: the truth of {image!r} is {sides} pixels, its image is {expected}; "
        "they must be equal: replace one of the two files"
    )


def _where(source: Source) -> Path | str:
    return source.path if isinstance(source, PngTruth) else "the instances JSON"


def _list_missing(missing: list[str], total: int, where: str) -> str:
    names = first_names(list(map(repr, missing)))
    return (
        f"{where}: {len(missing)} of {total} images have no ground truth: {names}; "
        "add it, or score a list of images that have it"
    )
