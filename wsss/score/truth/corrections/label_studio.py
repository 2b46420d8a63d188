"""Corrected masks in Label Studio's JSON: brush results of annotations.

Later results of an annotation lie on top. Predictions and cancelled annotations do not count: they
are no corrections.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from jaxtyping import Bool

from wsss.data.manifest import Sample
from wsss.score.truth.corrections.files import read_json
from wsss.score.truth.corrections.images import Correction, RunImages
from wsss.score.truth.corrections.report import ImportReport
from wsss.score.truth.errors import TruthError

_EXPECTED = "Label Studio's export in the form JSON, a list of tasks with annotations"
_CHANNELS = 4
_IGNORED_TYPES = frozenset({"choices", "textarea", "rating"})
"""Results that say nothing of pixels."""


def read_label_studio(
    source: Path, images: RunImages, report: ImportReport
) -> Iterator[Correction]:
    """The masks of annotated tasks.

    Args:
        report: counts what is left out.

    Raises:
        TruthError: the file is no such export, or does not fit the run.
    """
    for index, task in enumerate(read_json(source, list, _EXPECTED)):
        where = f"{source}, task {index + 1}"
        try:
            data = task["data"]
            finished = [a for a in task["annotations"] if not a.get("was_cancelled")]
            name = str(data.get("id") or unquote(str(data["image"])).rpartition("?d=")[2])
            results = finished[-1]["result"] if finished else []
        except (KeyError, TypeError, AttributeError) as error:
            raise TruthError(f"{where}: lacks {error}; expected {_EXPECTED}") from None
        sample = images.find(name)
        if sample is None:
            report.unknown.append(name)
        elif finished:
            yield Correction(sample, _draw(sample, results, images, where))
        else:
            report.empty.append(sample.id)


def _draw(sample: Sample, results: Sequence[Any], images: RunImages, where: str) -> np.ndarray:
    drawn = np.zeros((sample.height, sample.width), np.uint8)
    for result in results:
        try:
            if result["type"] in _IGNORED_TYPES:
                continue
            if result["type"] != "brushlabels":
                raise TruthError(
                    f"{where}: {sample.id!r} has a result of type {result['type']!r}; only brush "
                    "masks are read: draw it with the brush, or export as COCO"
                )
            size = (result["original_height"], result["original_width"])
            (word,), runs = result["value"]["brushlabels"], result["value"]["rle"]
            images.check_size(sample, size, where)
            mask = decode_brush(runs, sample.height, sample.width)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise TruthError(
                f"{where}: a brush mask of {sample.id!r} cannot be read ({error!r}); expected "
                f"{_EXPECTED}"
            ) from None
        drawn[mask] = images.label(str(word), where)
    return drawn


def decode_brush(data: Sequence[int], height: int, width: int) -> Bool[np.ndarray, "height width"]:
    """The pixels of a brush mask; the form of its code is described in `wsss.export.brush`.

    Raises:
        ValueError: it is no such code, or of another number of pixels.
    """
    digits = np.unpackbits(np.frombuffer(bytes(data), np.uint8)) + ord("0")
    bits = digits.tobytes().decode("ascii")
    values = np.zeros(_CHANNELS * height * width, np.uint8)
    position = 0

    def read(count: int) -> int:
        nonlocal position
        position += count
        if position > len(bits):
            raise ValueError("it is cut off")
        return int(bits[position - count : position], 2)

    if (count := read(32)) != values.size:
        raise ValueError(f"it holds {count} values, expected {values.size}")
    width_of_value = read(5) + 1
    if width_of_value != 8:
        raise ValueError(f"its values have {width_of_value} bits, expected 8")
    lengths = [read(4) + 1 for _ in range(4)]
    index = 0
    while index < count:
        equal = read(1)
        end = index + 1 + read(lengths[read(2)])
        if end > count:
            raise ValueError("its runs are longer than the picture")
        if equal:
            values[index:end] = read(8)
        else:
            literal = read(8 * (end - index))
            values[index:end] = np.frombuffer(literal.to_bytes(end - index, "big"), np.uint8)
        index = end
    return values.reshape(height, width, _CHANNELS)[:, :, _CHANNELS - 1] > 0
