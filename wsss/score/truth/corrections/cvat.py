"""Corrected masks in CVAT's archive "Segmentation mask 1.1"."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from wsss.data.images.read import open_header
from wsss.errors import raise_unless_about
from wsss.score.truth.corrections.images import Correction, RunImages
from wsss.score.truth.corrections.report import ImportReport
from wsss.score.truth.errors import TruthError

_LABELS, _MASKS = "labelmap.txt", "SegmentationClass/"
_EXPECTED = f'CVAT\'s archive "Segmentation mask 1.1" with {_LABELS} and {_MASKS}<id>.png'
_LINE = re.compile(r"(?P<name>[^:]+):(?P<colour>\d+,\d+,\d+):[^:]*:[^:]*")
# What zipfile and Pillow raise at damaged bytes.
_DAMAGE = (
    OSError, zipfile.BadZipFile, KeyError, ValueError, SyntaxError, RuntimeError, EOFError,
    MemoryError, zlib.error,
)  # fmt: skip
_MOST = 2**30  # bytes of a member, unpacked


def read_cvat(source: Path, images: RunImages, report: ImportReport) -> Iterator[Correction]:
    """The masks of an archive.

    Args:
        report: counts what is left out.

    Raises:
        TruthError: the file is no such archive, or does not fit the run.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            labels = _label_of_colour(_member(archive, _LABELS).decode("utf-8"), images, source)
            for name in archive.namelist():
                if not name.startswith(_MASKS) or not name.endswith(".png"):
                    continue
                sample = images.find(name.removeprefix(_MASKS))
                if sample is None:
                    report.unknown.append(name)
                    continue
                where, content = f"{source}, {name}", io.BytesIO(_member(archive, name))
                with open_header(content, ["PNG"]) as image:
                    images.check_size(sample, (image.height, image.width), where)
                    picture = np.array(image.convert("RGB"))
                yield Correction(sample, _labels(picture, labels, where))
    except _DAMAGE as error:
        if isinstance(error, TruthError):
            raise
        raise_unless_about(source, error)
        raise TruthError(f"{source}: cannot be read ({error}); expected {_EXPECTED}") from None


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > _MOST:
        raise ValueError(f"{name} has more than {_MOST} bytes")
    return archive.read(name)


def _label_of_colour(text: str, images: RunImages, source: Path) -> dict[int, int]:
    labels = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise TruthError(
                f"{source}: {_LABELS} has the line {line!r}; expected name:red,green,blue::"
            )
        red, green, blue = map(int, match["colour"].split(","))
        labels[red << 16 | green << 8 | blue] = images.label(match["name"], f"{source}, {_LABELS}")
    return labels


def _labels(
    picture: UInt8[np.ndarray, "height width 3"], labels: Mapping[int, int], where: str
) -> UInt8[np.ndarray, "height width"]:
    channels = picture.astype(np.uint32)
    colours, places = np.unique(
        channels[..., 0] << 16 | channels[..., 1] << 8 | channels[..., 2], return_inverse=True
    )
    if unknown := [colour for colour in colours.tolist() if colour not in labels]:
        rgb = tuple(unknown[0].to_bytes(3, "big"))
        raise TruthError(f"{where}: has the colour {rgb}, which {_LABELS} does not name")
    table = np.array([labels[colour] for colour in colours.tolist()], np.uint8)
    return table[places].reshape(picture.shape[:2])
