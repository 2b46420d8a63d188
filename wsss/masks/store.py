"""How label maps of a shard are made and stored: HDF5 beside palette PNGs, nothing made twice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from wsss.artifacts.atomic import atomic_path
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.item_cache import ItemCache
from wsss.artifacts.progress import track
from wsss.artifacts.provenance import Provenance
from wsss.artifacts.shard import Item, ShardWriter
from wsss.compute.pool import WorkerPool
from wsss.config.labels import CrfConfig
from wsss.data.images.label_png import save_label_png
from wsss.data.manifest import Sample
from wsss.labels.ignore import IGNORED
from wsss.masks.make import MaskTask, PseudoMask

_log = logging.getLogger(__name__)
PRODUCTS = ("label", "train")
_PIXELS_WORTH_A_PROCESS = 6_000_000  # pixels times labels: what a CRF does while one starts


def write_products(
    out: Path,
    png: Path,
    kind: str,
    samples: Sequence[Sample],
    keys: Mapping[str, str],
    task: Callable[[Sample], MaskTask],
    work: Callable[[MaskTask], PseudoMask],
    made: Provenance,
    *,
    crf: CrfConfig,
    workers: int,
    description: str,
) -> None:
    """Write one shard and its PNGs; what an earlier shard holds under the same key is kept.

    Items have the arrays ``label`` and ``train``, both uint8 [H, W], and the attributes ``size``,
    ``classes`` and ``confident`` (share of ``train`` that is not 255). The content does not depend
    on the number of workers.

    Args:
        out: shard to write.
        png: folder to write ``label/<id>.png`` and ``train/<id>.png`` to; an older one is replaced.
        kind: of the shard.
        samples: the images, in the order of the shard.
        keys: of each image's item.
        task: what ``work`` needs of an image; called in this process.
        work: makes the label maps; sent to other processes.
        made: provenance of the shard.
        crf: whether ``work`` takes long enough for processes of its own.
        workers: how many of them at most.
        description: said beside the progress.

    Raises:
        ArtifactError: an image's id is no file name, or ``png`` is a folder of something else,
            which would be lost.
        WorkerError: work on an image failed, or a worker process was killed.
    """
    kept = ItemCache(out, kind=kind)
    _refuse_other(png)
    with (  # the shard appears last: where it is, the PNGs are
        ShardWriter(out, kind=kind, ids=[s.id for s in samples], provenance=made) as writer,
        atomic_path(png) as folder,
    ):
        for product in PRODUCTS:
            (folder / product).mkdir(parents=True)
        todo = []
        for sample in samples:
            if old := kept.find(sample.id, keys[sample.id]):
                _store(old, writer, folder)
            else:
                todo.append(sample)
        classes: dict[str, tuple[int, ...]] = {}

        def remembered(sample: Sample) -> tuple[str, MaskTask]:
            one = task(sample)
            classes[sample.id] = one.classes
            return sample.id, one

        with WorkerPool(_worth_starting(crf, workers, todo)) as pool:
            found = track(
                pool.map(work, map(remembered, todo)), total=len(todo), description=description
            )
            for sample, (_, mask) in zip(todo, found, strict=True):
                item = _item(sample, mask, classes.pop(sample.id), keys[sample.id])
                _store(item, writer, folder)
    kept.store()
    _log.info(
        "%d images: %d reused, %d computed", len(samples), len(samples) - len(todo), len(todo)
    )


def _refuse_other(png: Path) -> None:
    """The folder of PNGs is replaced as a whole, so it must hold nothing else."""
    if png.is_dir() and (other := sorted({entry.name for entry in png.iterdir()} - set(PRODUCTS))):
        raise ArtifactError(
            f"{png}: is replaced as a whole, but holds {other[0]!r}, which was not made here; name "
            "a folder of its own for the PNGs"
        )


def _worth_starting(crf: CrfConfig, wanted: int, samples: Sequence[Sample]) -> int:
    """As many processes as are worth starting."""
    if not crf.enabled:
        return 1
    work = sum(s.width * s.height * (len(s.tags) + 1) for s in samples)
    return max(1, min(wanted, len(samples), work // _PIXELS_WORTH_A_PROCESS))


def _item(sample: Sample, mask: PseudoMask, classes: Sequence[int], key: str) -> Item:
    attrs = {
        "size": [sample.height, sample.width],
        "classes": list(classes),
        "confident": float(np.mean(mask.train != IGNORED)),
    }
    return Item(sample.id, {"label": mask.label, "train": mask.train}, attrs, key)


def _store(item: Item, writer: ShardWriter, folder: Path) -> None:
    writer.add(item)
    for product in PRODUCTS:
        save_label_png(_png(folder / product, item.id), item.arrays[product])


def _png(folder: Path, image: str) -> Path:
    """The file of an id, which may name sub folders but must stay inside ``folder``."""
    parts = PurePosixPath(image).parts
    if not parts or image.startswith("/") or ".." in parts or "\0" in image:
        raise ArtifactError(f"the image id {image!r} is no file name; rename the image")
    return folder.joinpath(f"{image}.png")
