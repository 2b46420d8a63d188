"""The archive that VOC's evaluation server takes: predictions of the test images.

::

    results/VOC2012/Segmentation/comp6_test_cls/<id>.png      palette PNG, labels 0 … 20

Comp 5 is for what was trained on VOC alone, comp 6 for anything else; a network that starts from
CLIP or ImageNet belongs to comp 6. The same predictions give the same bytes.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from wsss.artifacts.atomic import atomic_path
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.progress import track
from wsss.artifacts.shard import Shard
from wsss.config.base import LEARNED_FROM, LearnedFrom, with_supervision
from wsss.data.counted import first_names
from wsss.data.datasets.classes import class_list
from wsss.data.datasets.files import read_lines
from wsss.data.images.label_png import label_png_bytes
from wsss.data.manifest_folder import load

Competition = Literal["comp5", "comp6"]
SUFFIXES = (".tgz", ".tar.gz", ".zip")
_LABELS = class_list("voc").label_count
_TIME = (1980, 1, 1, 0, 0, 0)  # the first that a zip can name
Add = Callable[[str, bytes], None]


@dataclass(frozen=True)
class Submission:
    """What went into an archive."""

    path: Path
    images: int
    protocol: str
    folder: str
    supervision: LearnedFrom = "tags"

    def __str__(self) -> str:
        text = f"{self.images} images ({self.protocol}) in {self.path}, under {self.folder}/"
        return with_supervision(text, self.supervision)


def write_submission(
    shards: Sequence[Path],
    manifest_dir: Path,
    ids: Path,
    out: Path,
    *,
    protocol: str,
    competition: Competition = "comp6",
) -> Submission:
    """Check predictions and pack them; nothing is written unless all is right.

    Args:
        shards: of kind ``predictions``; together they hold the images of the list, and may hold
            more.
        manifest_dir: what ingest wrote of these images; tells their sizes.
        ids: the list of test images, one id per line (VOC's has 1456).
        out: the archive; its ending says which (.tgz, .tar.gz, .zip).
        protocol: which label maps of the shards, e.g. ``multi_crf``.
        competition: whose folder they are put in.

    Raises:
        ArtifactError: images of the list are missing or come twice, or a label map has another size
            than its image or labels that are not VOC's; or the class list is not VOC's.
        DataError: the list cannot be read.
        ValueError: the archive's ending is unknown.
    """
    if not out.name.endswith(SUFFIXES):
        raise ValueError(f"{out}: ends in none of {', '.join(SUFFIXES)}; choose one of these")
    manifest, classes = load(manifest_dir)
    if classes.names != class_list("voc").names:
        raise ArtifactError(
            f"{manifest_dir}: has the classes of {classes.name!r}; the server takes VOC's twenty"
        )
    listed = _read_ids(ids)
    sizes = {sample.id: (sample.height, sample.width) for sample in manifest}
    _refuse(f"{manifest_dir}: lacks", [i for i in listed if i not in sizes], "see quarantine.csv")
    paths = _shard_of_image(shards, set(listed))
    _refuse("the shards lack", [i for i in listed if i not in paths], "pass all shards")

    folder = f"results/VOC2012/Segmentation/{competition}_test_cls"
    with atomic_path(out) as temporary, _archive(temporary, out.name) as add:
        maps = _maps(listed, paths, protocol)
        for image, labels, where in track(maps, total=len(listed), description="packing"):
            _check(labels, sizes[image], where)
            add(f"{folder}/{image}.png", label_png_bytes(labels))
    supervision = max((_supervision(path) for path in shards), key=LEARNED_FROM.index)
    return Submission(out, len(listed), protocol, folder, supervision)


def _supervision(path: Path) -> LearnedFrom:
    with Shard(path) as shard:
        return shard.provenance.supervision


def _read_ids(ids: Path) -> list[str]:
    """The ids of the list, sorted."""
    listed = [line.split()[0] for line in read_lines(ids)]
    if not listed:
        raise ArtifactError(f"{ids}: names no image")
    again = sorted(image for image, count in Counter(listed).items() if count > 1)
    _refuse(f"{ids}: lists more than once", again, "take the list of the official archive")
    return sorted(listed)


def _shard_of_image(shards: Sequence[Path], listed: set[str]) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    twice = []
    for path in shards:
        with Shard(path, kind="predictions") as shard:
            for image in shard.ids:
                if image in paths:
                    twice.append(image)
                elif image in listed:
                    paths[image] = path
    _refuse("shards hold more than once", twice, "pass every shard once, all of one run")
    return paths


def _maps(
    listed: Sequence[str], paths: dict[str, Path], protocol: str
) -> Iterator[tuple[str, UInt8[np.ndarray, "h w"], str]]:
    """Id, label map and its origin for messages, in the order of the list."""
    with ExitStack() as stack:
        opened = {
            path: stack.enter_context(Shard(path, kind="predictions"))
            for path in dict.fromkeys(paths.values())
        }
        for image in listed:
            shard = opened[paths[image]]
            arrays = shard.read(image).arrays
            where = f"{shard.path}: {protocol!r} of {image!r}"
            if protocol not in arrays:
                raise ArtifactError(f"{where} is not there; the shard has {sorted(arrays)}")
            yield image, arrays[protocol], where


def _check(labels: UInt8[np.ndarray, "h w"], size: tuple[int, int], where: str) -> None:
    if labels.shape != size:
        sides, expected = (f"{width} x {height}" for height, width in (labels.shape, size))
        raise ArtifactError(f"{where} is {sides} pixels, its image {expected}; predict again")
    if int(labels.max()) >= _LABELS:
        raise ArtifactError(
            f"{where} holds label {int(labels.max())}; the server takes 0 … {_LABELS - 1}"
        )


def _refuse(what: str, images: Sequence[str], remedy: str) -> None:
    if images:
        raise ArtifactError(f"{what} {len(images)} images: {first_names(images)}; {remedy}")


@contextmanager
def _archive(path: Path, name: str) -> Iterator[Add]:
    """Write an archive whose bytes depend on names and contents alone."""
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:  # PNGs are packed already

            def add_to_zip(member: str, content: bytes) -> None:
                info = zipfile.ZipInfo(member, _TIME)
                info.external_attr = 0o644 << 16
                archive.writestr(info, content)

            yield add_to_zip
        return
    with (
        path.open("wb") as stream,
        gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive_of_tar,
    ):

        def add_to_tar(member: str, content: bytes) -> None:
            info = tarfile.TarInfo(member)
            info.size, info.mode = len(content), 0o644
            archive_of_tar.addfile(info, io.BytesIO(content))

        yield add_to_tar
