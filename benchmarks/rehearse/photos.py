"""A few real photographs, laid out as the data sets of the presets are."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from wsss.config.model import Config
from wsss.data.datasets.coco import PARTS
from wsss.data.datasets.registry import read_dataset
from wsss.data.datasets.voc import ANNOTATIONS, AUGMENTED_MASKS, LISTS, MASKS

_Id = TypeVar("_Id", int, str)
VOC_TAGS, COCO_TAGS = (1, 2), (3, 2, 4)
"""Numbers of tags of the photographs, in turn: 1.5 on average in VOC, 2.9 in COCO."""
VOC_SIZE, COCO_SIZE = (500, 375), (640, 480)
"""Width and height, pixels: those of most photographs."""


def lay_out_voc(source: Path, root: Path, photos: tuple[int, int]) -> None:
    """A development kit with the list trainaug; its annotations are written from the tags.

    Args:
        source: folder ``voc-subset``.
        root: folder to write.
        photos: images of trainaug and of val; train is trainaug without its last image.
    """
    chosen = _voc_photos(source, photos)
    for images in chosen.values():
        for image, tags in images.items():
            _copy(source / f"JPEGImages/{image}.jpg", root / "JPEGImages")
            for folder in (MASKS, AUGMENTED_MASKS):
                _copy(source / f"SegmentationClass/{image}.png", root / folder)
            _write(root / f"{ANNOTATIONS}/{image}.xml", _annotation(tags, VOC_SIZE))
    augmented = list(chosen["train"])
    lists: dict[str, Iterable[str]] = {
        "trainaug": augmented,
        "train": augmented[:-1] or augmented,
        "val": chosen["val"],
    }
    for name, ids in lists.items():
        _write(root / f"{LISTS}/{name}.txt", "".join(f"{image}\n" for image in ids))
    rows = itertools.chain(*(images.items() for images in chosen.values()))
    table = "".join(f"{image};{' '.join(tags)}\n" for image, tags in rows)
    _write(root / "tags.csv", f"image;classes\n{table}")


def lay_out_folder(source: Path, root: Path, photos: tuple[int, int]) -> None:
    """Photographs with a table of tags."""
    images = _voc_photos(source, photos)["train"]
    for image in images:
        _copy(source / f"JPEGImages/{image}.jpg", root)
    rows = "".join(f"{image},{';'.join(tags)}\n" for image, tags in images.items())
    _write(root / "tags.csv", f"image,tags\n{rows}")


def lay_out_coco(source: Path, root: Path, photos: tuple[int, int]) -> None:
    """COCO 2014 with the annotations of a few images.

    Args:
        source: folder ``coco-subset``.
        root: folder to write.
        photos: images of train2014 and val2014.
    """
    for part, count in zip(PARTS, photos, strict=True):
        name = f"annotations/instances_{part}2014.json"
        content = json.loads((source / name).read_text(encoding="utf-8"))
        tags: dict[int, set[int]] = {image["id"]: set() for image in content["images"]}
        for instance in content["annotations"]:
            tags[instance["image_id"]].add(instance["category_id"])
        usual = [i["id"] for i in content["images"] if (i["width"], i["height"]) == COCO_SIZE]
        ids = set(_in_turn({image: tags[image] for image in usual}, COCO_TAGS, count))
        content["images"] = [image for image in content["images"] if image["id"] in ids]
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] in ids]
        _write(root / name, json.dumps(content))
        for image in content["images"]:
            _copy(source / f"{part}2014/{image['file_name']}", root / f"{part}2014")


def write_seeds(config: Config, folder: Path) -> None:
    """External CAMs of every image in MCTformer's layout: one Gaussian per tag."""
    folder.mkdir(parents=True, exist_ok=True)
    for image in read_dataset(config.data, config.variant).candidates:
        path = folder / f"{image.id}.npy"
        if path.exists():
            continue
        with Image.open(image.path) as photo:
            width, height = photo.size
        y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
        maps = {
            tag: np.exp(-8 * ((y - 0.5) ** 2 + (x - place) ** 2)).astype(np.float32)
            for tag, place in zip(image.tags, np.linspace(0.3, 0.7, len(image.tags)), strict=True)
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.array(maps, dtype=object), allow_pickle=True)


def _voc_photos(source: Path, photos: tuple[int, int]) -> dict[str, dict[str, list[str]]]:
    """The tags of the chosen images, by list."""
    with (source / "tags.csv").open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream, delimiter=";")
        tags = {row["image"]: row["classes"].split() for row in rows}
    chosen = {}
    for name, count in zip(("train", "val"), photos, strict=True):
        ids = (source / f"{LISTS}/{name}.txt").read_text(encoding="utf-8").split()
        usual = {image: tags[image] for image in ids if _size(source, image) == VOC_SIZE}
        chosen[name] = {image: tags[image] for image in _in_turn(usual, VOC_TAGS, count)}
    return chosen


def _in_turn(
    tags: Mapping[_Id, Iterable[Any]], counts: Sequence[int], number: int
) -> Iterator[_Id]:
    """Images with as many tags as ``counts`` says in turn, in their order."""
    by_count = {
        count: iter([image for image, names in tags.items() if len(set(names)) == count])
        for count in counts
    }
    for count in itertools.islice(itertools.cycle(counts), number):
        image = next(by_count[count], None)
        if image is None:
            raise ValueError(f"fewer than {number} photographs are suitable; ask for less")
        yield image


def _size(source: Path, image: str) -> tuple[int, int]:
    with Image.open(source / f"JPEGImages/{image}.jpg") as photo:
        return photo.size


def _annotation(tags: Iterable[str], size: tuple[int, int]) -> str:
    objects = "".join(f"<object><name>{tag}</name></object>" for tag in tags)
    width, height = size
    return (
        f"<annotation><size><width>{width}</width><height>{height}</height></size>{objects}"
        "</annotation>\n"
    )


def _copy(file: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / file.name).exists():
        shutil.copyfile(file, folder / file.name)


def _write(path: Path, text: str) -> None:
    """Write a file, or leave it if it says the same, so that nothing reruns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
