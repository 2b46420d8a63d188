"""The contact sheet: the products of each stage for the same images, side by side."""

from __future__ import annotations

import io
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from wsss.artifacts.digest import digest_json
from wsss.artifacts.png_stamp import write_picture
from wsss.artifacts.shard import Item, Shard
from wsss.artifacts.stage import STAGES
from wsss.config.base import MIXED, Supervision, with_supervision
from wsss.config.data import DataConfig
from wsss.config.score import PicturesConfig
from wsss.data.datasets.classes import ClassList
from wsss.data.images.label_png import voc_palette
from wsss.data.images.read import read_image
from wsss.data.manifest import Manifest, Sample
from wsss.data.manifest_folder import load, manifest_digests
from wsss.labels.upsample import upsample
from wsss.score.figures.fonts import class_name
from wsss.score.figures.overlay import OUTLINE_AT, paint_heat, paint_labels, scaled
from wsss.score.figures.sheet_layout import PICTURE_SIDE, LegendItem, Row, draw_sheet
from wsss.score.product import SHOWN_FIRST
from wsss.score.truth.find import Truth, find_truth, read_truth

_PALETTE = np.array(voc_palette(), np.uint8)
_HEATS = {"cam": "CAM", "cam_affinity": "CAM + affinity"}
_MASKS = {"label": "pseudo mask", "train": "train mask"}
_HATCHED = frozenset({"train", "seed"})
_SEED, _REFINER = "seed", "refiner"
_NOTE = (
    f"CAM: largest class score from dark (0) to bright (1), outlined at {OUTLINE_AT} in the colour "
    "of its class. Grey stripes: ignored in training."
)


def contact_sheet(
    manifest_dir: Path,
    split: str,
    out: Path,
    *,
    name: str,
    supervision: Supervision = "tags",
    data: DataConfig,
    pictures: PicturesConfig,
    cams: Sequence[Path] = (),
    seeds: Sequence[Path] = (),
    masks: Sequence[Path] = (),
    refiner: Sequence[Path] = (),
    predictions: Sequence[Path] = (),
) -> None:
    """Draw image | CAM | CAM + affinity | seed | pseudo mask | train mask | … | truth.

    A column appears when its shards are given (and hold it); the truth when there is any.

    Args:
        split: ``train`` or ``val``.
        out: PNG to write.
        supervision: of the run; an upper bound is called so.
        pictures: how many images are shown.
        cams, seeds, masks, refiner, predictions: shards of that split; refiner: its predictions.

    Raises:
        TruthError: ground truth is missing or of another size than its image.
        ArtifactError: a shard is missing or damaged.
    """
    manifest, classes = load(manifest_dir)
    manifest = manifest.split(split)
    samples = sample_images(manifest, pictures.contact_images)
    items: dict[str, list[Item]] = {sample.id: [] for sample in samples}
    inputs = manifest_digests(manifest_dir)
    for paths, kind, column, arrays_of in (
        (cams, "cams", "", ()),
        (masks, "masks", "", ()),
        (predictions, "predictions", "", ()),
        (seeds, "seeds", _SEED, ("train",)),
        (refiner, "predictions", _REFINER, SHOWN_FIRST),
    ):
        for path in paths:
            with Shard(path, kind=kind) as shard:
                inputs[str(path)] = shard.content
                for image in items.keys() & set(shard.ids):
                    item = shard.read(image)
                    items[image].append(_renamed(item, column, arrays_of) if column else item)
    shown = shown_truth(data, manifest, samples, split)
    truths = None if shown is None else shown.sources
    if shown is not None:
        inputs["truth"] = shown.digest()
    arrays = _columns(items)
    columns = ["image", *arrays.values(), *(["truth"] if truths is not None else [])]
    rows, labels = [], set[int]()
    for sample in samples:
        photo = read_image(sample.path, digest=sample.digest, max_pixels=data.max_pixels)
        photo = scaled(photo, PICTURE_SIDE)
        images = _pictures(photo, items[sample.id], list(arrays))
        if truths is not None:
            truth = None
            if sample.id in truths:
                truth = read_truth(truths[sample.id], sample.id, sample.height, sample.width)
                labels.update(np.unique(truth).tolist())
            images.append(None if truth is None else _painted(photo, truth))
        labels.update(tag + 1 for tag in sample.tags)
        labels.update(_labels_in(items[sample.id], list(arrays)))
        tags = tuple(_legend_item(classes, tag + 1) for tag in sample.tags)
        rows.append(Row(tuple(images), sample.id, tags))
    run = run_title(name, supervision, predictions)
    title = f"{run}: {len(samples)} of {len(manifest)} {split} images, spread over the classes"
    legend = [_legend_item(classes, label) for label in sorted(labels - {0, 255})]
    if truths is not None and 255 in labels:
        legend.append(LegendItem("void in the truth", (224, 224, 192)))
    if _HATCHED & set(arrays):
        legend.append(LegendItem("ignored", (170, 170, 170), hatched=True))
    sheet = draw_sheet(title, columns, rows, legend, _NOTE)
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    values = {"name": name, "supervision": supervision, "data": data, "pictures": pictures}
    write_picture(out, buffer.getvalue(), STAGES["pictures"].provenance(values, inputs=inputs))


def run_title(name: str, supervision: Supervision, predictions: Sequence[Path]) -> str:
    """The name of a run with what taught it; mixed supervision teaches the segmenter alone.

    Args:
        predictions: shards of the segmenter's predictions; may be none.
    """
    title = with_supervision(name, supervision)
    for path in predictions[:1]:
        with Shard(path) as shard:
            if shard.provenance.supervision == "mixed":
                title += f"; predictions: {MIXED}"
    return title


def sample_images(manifest: Manifest, count: int) -> list[Sample]:
    """Images spread over the classes, chosen by id and never by result.

    In turns, the class that is shown least so far gets one more image: of the remaining ones with
    that tag the one whose digest of the id comes first. The result is in the order of the manifest.
    """
    ordered = sorted(manifest, key=lambda sample: digest_json(sample.id))
    by_tag: dict[int, deque[Sample]] = {}
    for sample in ordered:
        for tag in sample.tags:
            by_tag.setdefault(tag, deque()).append(sample)
    untagged = deque(sample for sample in ordered if not sample.tags)
    shown: Counter[int] = Counter()
    ids: set[str] = set()
    while len(ids) < count and (by_tag or untagged):
        rarest = min(by_tag, key=lambda tag: (shown[tag], tag), default=None)
        remaining = untagged if rarest is None else by_tag[rarest]
        pick = remaining.popleft()
        if pick.id not in ids:  # it may have been shown for another of its tags
            ids.add(pick.id)
            shown.update(pick.tags)
        if rarest is not None and not remaining:
            del by_tag[rarest]
    return [sample for sample in manifest if sample.id in ids]


def shown_truth(
    data: DataConfig, manifest: Manifest, samples: Sequence[Sample], split: str
) -> Truth | None:
    """The truth of the images of a sheet; None where none is configured.

    Args:
        manifest: the images of the split.
        samples: those of the sheet.
        split: ``train`` or ``val``.

    Raises:
        TruthError: an image that must have one has none.
    """
    if not data.has_truth:
        return None
    # Of a folder of photos any part may lack a mask; elsewhere only what is shown must have one.
    required = manifest if data.kind == "folder" else Manifest(tuple(samples))
    truth = find_truth(data, required, split)
    ids = {sample.id for sample in samples}
    return replace(truth, sources={i: s for i, s in truth.sources.items() if i in ids})


def _columns(items: dict[str, list[Item]]) -> dict[str, str]:
    """Array → header, of the arrays that any shown image has; one prediction only."""
    stored = {name for of_image in items.values() for item in of_image for name in item.arrays}
    shown = _HEATS | {_SEED: "seed"} | _MASKS | {_REFINER: "refiner"}
    columns = {name: header for name, header in shown.items() if name in stored}
    prediction = next((name for name in SHOWN_FIRST if name in stored), None)
    return columns | ({prediction: "prediction"} if prediction else {})


def _renamed(item: Item, column: str, names: Sequence[str]) -> Item:
    """The first array of these names, under one that no other product has."""
    name = next(name for name in names if name in item.arrays)
    return replace(item, arrays={column: item.arrays[name]})


def _pictures(
    photo: UInt8[np.ndarray, "h w 3"], items: Sequence[Item], arrays: Sequence[str]
) -> list[np.ndarray | None]:
    pictures: list[np.ndarray | None] = [photo]
    for name in arrays:
        item = next((item for item in items if name in item.arrays), None)
        if item is None:
            pictures.append(None)
        elif name in _HEATS:
            grid = item.arrays[name].astype(np.float32)
            maps: Float32[np.ndarray, "classes h w"] = upsample(grid, photo.shape[:2])
            pictures.append(paint_heat(photo, maps, item.attrs["classes"], _PALETTE))
        else:
            pictures.append(_painted(photo, item.arrays[name], hatch_ignore=name in _HATCHED))
    return pictures


def _painted(
    photo: UInt8[np.ndarray, "h w 3"], labels: np.ndarray, *, hatch_ignore: bool = False
) -> np.ndarray:
    small = scaled(labels, PICTURE_SIDE)
    return paint_labels(photo, small, _PALETTE, hatch_ignore=hatch_ignore)


def _labels_in(items: Sequence[Item], arrays: Sequence[str]) -> set[int]:
    names = set(arrays) - set(_HEATS) - _HATCHED
    maps = [item.arrays[name] for item in items for name in names if name in item.arrays]
    return {label for labels in maps for label in np.unique(labels).tolist()}


def _legend_item(classes: ClassList, label: int) -> LegendItem:
    red, green, blue = _PALETTE[label].tolist()
    return LegendItem(class_name(classes.names[label - 1], label), (red, green, blue))
