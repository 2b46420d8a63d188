"""Corrected masks in an instances JSON, as CVAT, Label Studio and many others write it.

Where annotations overlap, the smaller one is on top.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wsss.data.manifest import Sample
from wsss.labels.layers import layered
from wsss.score.truth.coco import outline_mask
from wsss.score.truth.corrections.files import read_json
from wsss.score.truth.corrections.images import Correction, RunImages
from wsss.score.truth.corrections.report import ImportReport
from wsss.score.truth.errors import TruthError

_EXPECTED = "an instances JSON with images, annotations and categories"


def read_coco(
    source: Path, images: RunImages, report: ImportReport, *, keep_empty: bool
) -> Iterator[Correction]:
    """The masks of an instances JSON.

    Args:
        report: counts what is left out.
        keep_empty: take an image without annotation for background; else it is left out, since many
            programs list images that nobody looked at.

    Raises:
        TruthError: the file is no instances JSON, or does not fit the run.
    """
    content = read_json(source, dict, _EXPECTED)
    try:
        entries = {image["id"]: image for image in content["images"]}
        labels = {c["id"]: images.label(str(c["name"]), str(source)) for c in content["categories"]}
        annotations: dict[Any, list[dict[str, Any]]] = {number: [] for number in entries}
        for annotation in content["annotations"]:
            annotations[annotation["image_id"]].append(annotation)
    except (KeyError, TypeError, AttributeError) as error:
        raise TruthError(f"{source}: lacks {error}; expected {_EXPECTED}") from None
    for number, entry in entries.items():
        name = str(entry.get("file_name", ""))
        sample = images.find(name)
        if sample is None:
            report.unknown.append(name)
        elif annotations[number] or keep_empty:
            images.check_size(sample, (entry.get("height"), entry.get("width")), str(source))
            yield Correction(sample, _draw(sample, annotations[number], labels, source))
        else:
            report.empty.append(sample.id)


def _draw(
    sample: Sample, annotations: list[dict[str, Any]], labels: dict[Any, int], source: Path
) -> np.ndarray:
    regions = []
    for annotation in annotations:
        number = annotation.get("id")
        try:
            label = labels[annotation["category_id"]]
            mask = outline_mask(annotation.get("segmentation"), sample.height, sample.width)
        except (ValueError, TypeError, LookupError, ArithmeticError) as error:
            raise TruthError(
                f"{source}: the outline of annotation {number} ({sample.id!r}) cannot be drawn "
                f"({type(error).__name__}: {error}); mend or remove it"
            ) from None
        regions.append((label, mask))
    return layered(regions, sample.height, sample.width)
