"""Shards of label maps, stored as HDF5 and as palette PNGs; unchanged ones are reused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from wsss.artifacts.atomic import atomic_path
from wsss.artifacts.digest import digest_json
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.item_cache import write_items
from wsss.artifacts.provenance import Provenance
from wsss.artifacts.shard import Item
from wsss.artifacts.watch import write_listing
from wsss.compute.pool import WorkerPool
from wsss.config.labels import CrfConfig
from wsss.data.images.label_png import save_label_png
from wsss.data.manifest import Sample, item_path
from wsss.labels.crf import bounded_share
from wsss.labels.ignore import IGNORED
from wsss.masks.make import MaskTask, PseudoMask

PRODUCTS = ("label", "train")
_PIXELS_WORTH_A_PROCESS = 6_000_000  # pixels times labels: work of a CRF while a process starts
_TORCH_START = 3  # times as long, where a process imports torch
_PAR_WORK = 3  # times that of a CRF


def write_products(
    out: Path,
    png: Path,
    samples: Sequence[Sample],
    *,
    provenance: Provenance,
    input_key: Callable[[str], str],
    task: Callable[[Sample], MaskTask],
    work: Callable[[MaskTask], PseudoMask],
    crf: CrfConfig,
    par: bool = False,
    workers: int,
) -> None:
    """Write one shard, whose kind is the stage's name, and its PNGs; unchanged items are copied.

    Items have the arrays ``label`` and ``train``, both uint8 [H, W], and the attributes ``size``,
    ``classes`` and ``coverage`` (share of ``train`` that is not 255). The content does not depend
    on the number of workers.

    Args:
        png: folder to write ``label/<id>.png`` and ``train/<id>.png`` to; an older one is replaced.
            A listing of it is written next to it.
        samples: the images, in the order of the shard.
        input_key: key of the item that an image is made from.
        task: gives the input of ``work``; called in this process.
        work: makes the label maps; sent to other processes.
        crf: of ``work``, decides with ``par`` whether several processes are worth their start.
        par: ``work`` refines with PAR.

    Raises:
        ArtifactError: an image's id is no file name, or ``png`` is a folder of something else,
            which would be lost.
        WorkerError: work on an image failed, or a worker process was killed.
    """
    by_id = {sample.id: sample for sample in samples}
    stage_key = provenance.key()
    keys = {
        s.id: digest_json([stage_key, s.digest, list(s.tags), input_key(s.id)]) for s in samples
    }
    _refuse_other_files(png)
    with ExitStack() as stack:
        folder = stack.enter_context(atomic_path(png))
        for product in PRODUCTS:
            (folder / product).mkdir(parents=True)

        def compute(missing: list[str]) -> Iterator[Item]:
            todo = [by_id[image] for image in missing]
            with WorkerPool(_process_count(crf, par, workers, todo)) as pool:
                masks = pool.map(work, ((sample.id, task(sample)) for sample in todo))
                for sample, (_, mask) in zip(todo, masks, strict=True):
                    yield _item(sample, mask, keys[sample.id])
            stack.close()  # the PNGs are in place before the shard appears
            write_listing(png)

        def save_pngs(item: Item) -> None:
            for product in PRODUCTS:
                save_label_png(png_path(folder / product, item.id), item.arrays[product])

        write_items(
            out,
            kind=provenance.stage,
            keys=keys,
            provenance=provenance,
            compute=compute,
            description=provenance.stage.capitalize(),
            also=save_pngs,
        )


def _refuse_other_files(png: Path) -> None:
    """The folder of PNGs is replaced as a whole, so it must hold nothing else."""
    if png.is_dir() and (other := sorted({entry.name for entry in png.iterdir()} - set(PRODUCTS))):
        raise ArtifactError(
            f"{png}: is replaced as a whole, but holds {other[0]!r}, which was not made here; name "
            "a folder for the PNGs alone"
        )


def _process_count(crf: CrfConfig, par: bool, workers: int, samples: Sequence[Sample]) -> int:
    """As many processes as are worth starting."""
    per_label = crf.enabled + _PAR_WORK * par
    if not per_label:
        return 1
    shares = (bounded_share(s.height, s.width, crf) for s in samples)
    areas = (s.width * s.height * share**2 for s, share in zip(samples, shares, strict=True))
    labels = (per_label * (len(s.tags) + 1) for s in samples)
    work = sum(area * count for area, count in zip(areas, labels, strict=True))
    imports_torch = par or crf.backend == "torch"
    least = _PIXELS_WORTH_A_PROCESS * (_TORCH_START if imports_torch else 1)
    return max(1, min(workers, len(samples), int(work // least)))


def _item(sample: Sample, mask: PseudoMask, key: str) -> Item:
    attrs = {
        "size": [sample.height, sample.width],
        "classes": list(mask.classes),
        "coverage": float(np.mean(mask.train != IGNORED)),
    }
    return Item(sample.id, {"label": mask.label, "train": mask.train}, attrs, key)


def png_path(folder: Path, image: str) -> Path:
    """The PNG of an id."""
    return item_path(folder, image, ".png")
