"""The masks that a run has, by image: what comes back equal to them was corrected by nobody."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from wsss.artifacts.shard import Shard
from wsss.export.errors import ExportError
from wsss.export.outlines import at_edges, drawn_by_centres, outlines
from wsss.export.source import open_run
from wsss.export.target import ABOUT
from wsss.export.task import POLYGONS, ExportTask
from wsss.labels.ignore import IGNORED
from wsss.labels.layers import layered
from wsss.pipeline.photo_run import is_of_photos
from wsss.pipeline.run_folder import run_folder

Labels = UInt8[np.ndarray, "height width"]


@contextmanager
def own_masks(
    run: Path, tolerance: float | None = None
) -> Iterator[Callable[[str], Iterator[Labels]]]:
    """A function from the id of an image to the masks of both products that the run has of it.

    Args:
        run: as of `open_run`.
        tolerance: of the polygons as which to give these masks, too; see `tolerance_of`.

    Raises:
        ExportError: the run has no masks, or not all of a split.
        ArtifactError: manifest or shards are damaged, or do not fit each other.
    """
    try:
        source = open_run(run, "label")
    except ExportError as error:
        raise ExportError(
            f"{error}; or pass --unchanged, which compares no mask with those of the run"
        ) from None
    with ExitStack() as stack:
        shards_of: dict[str, list[Shard]] = {}  # an id may be in both splits
        for paths in source.shards.values():
            for path in paths:
                shard = stack.enter_context(Shard(path, kind="masks"))
                for image in shard.ids:
                    shards_of.setdefault(image, []).append(shard)

        def masks(image: str) -> Iterator[Labels]:
            items = [shard.read(image).arrays for shard in shards_of.get(image, [])]
            exact = [arrays[product] for arrays in items for product in ("label", "train")]
            yield from exact
            if tolerance is not None:
                yield from (_as_polygons(labels, tolerance) for labels in exact)

        yield masks


def refuse_own_folder(out: Path, run: Path) -> None:
    """Refuse a folder that the run fills: its next run would draw over corrected masks.

    Args:
        out: where corrected masks shall go.
        run: as of `open_run`.

    Raises:
        ExportError: it is such a folder.
    """
    folder = run_folder(run, "masks").resolve()
    filled_folders = [folder / "masks", folder / "gallery"]
    if is_of_photos(folder.parents[1]):
        filled_folders.append(folder.parents[1] / "masks")
    if any(out.resolve().is_relative_to(path) for path in filled_folders):
        raise ExportError(
            f"--out {out}: the run writes its own masks there, over corrected ones; name a folder "
            "of your own"
        )


def tolerance_of(annotations: Path) -> float:
    """The tolerance of the polygons in a file of COCO, as far as it is known.

    Args:
        annotations: the file. In an export the folder says it; elsewhere it is the default.
    """
    for folder in annotations.absolute().parents[:2]:
        try:
            about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
            return float(about[POLYGONS])
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return ExportTask.tolerance


def _as_polygons(labels: Labels, tolerance: float) -> Labels:
    """What is read from the polygons of a mask: between classes they leave gaps, or overlap."""
    size = labels.shape
    regions = []
    for label in np.unique(labels).tolist():
        if label in (0, IGNORED):
            continue
        polygons = outlines((labels == label).astype(np.uint8), tolerance)
        regions.append((label, drawn_by_centres(list(map(at_edges, polygons)), *size) > 0))
    return layered(regions, *size)
