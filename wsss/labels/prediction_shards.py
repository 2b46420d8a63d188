"""Shards of predicted label maps, written by one job or by two.

A CRF beside a network leaves a GPU idle. So where the network runs on a GPU, its job hands over
what the CRF needs (`wsss.labels.planes`), and a job on CPUs writes the shard (`finish`).
Elsewhere `write_predictions` does both. The shards of both ways are the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from wsss.artifacts.digest import digest_json
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.item_cache import ItemCache, write_items
from wsss.artifacts.progress import track
from wsss.artifacts.provenance import Provenance
from wsss.artifacts.shard import Item, Shard, ShardWriter
from wsss.artifacts.staleness import setting_differences
from wsss.compute.pool import WorkerPool
from wsss.compute.threads import ordered_map
from wsss.config.labels import CrfConfig
from wsss.data.images.read import read_image
from wsss.data.manifest import Sample
from wsss.labels import planes
from wsss.labels.prediction import Prediction, label_maps

Predictions = Iterable[tuple[str, Prediction]]
"""Ids and predictions of images, in any order."""
_KIND = "predictions"


@dataclass(frozen=True)
class PredictionJob:
    """A shard of kind ``predictions`` that is to be written: label maps, uint8 at image size."""

    out: Path
    samples: Sequence[Sample]
    """Its images."""
    provenance: Provenance
    crf: CrfConfig | None
    """Settings of the dense CRF that adds ``<protocol>_crf``; None for none."""
    workers: int
    """Processes that run CRFs."""
    description: str
    """Shown next to the progress."""

    @functools.cached_property
    def sizes(self) -> dict[str, list[int]]:
        """Height and width of each image, pixels."""
        return {sample.id: [sample.height, sample.width] for sample in self.samples}

    def keys(self, key: str) -> dict[str, str]:
        """The key of each item.

        Args:
            key: digest of all that a prediction depends on, but the image.
        """
        return {s.id: digest_json([key, s.digest, list(s.tags)]) for s in self.samples}


def write_predictions(
    job: PredictionJob,
    predict: Callable[[list[Sample]], Predictions],
    *,
    key: str,
    device: str = "cpu",
    planes_to: Path | None = None,
    labels: int = 0,
) -> None:
    """Run a network over the images of a shard, and write the shard or what it is made from.

    Label maps that an earlier run made from the same things are copied.

    Args:
        predict: gives the predictions of some images.
        key: digest of all that a prediction depends on, but the image.
        device: of the network. On a GPU the CRF with the backend torch runs there, too.
        planes_to: the file for `finish`, to write instead of the shard.
        labels: how many labels enter every CRF; 0 where the image decides.
    """
    by_id = {sample.id: sample for sample in job.samples}
    keys, sizes = job.keys(key), job.sizes

    def predictions(missing: list[str]) -> Predictions:
        return predict([by_id[image] for image in missing]) if missing else ()

    def label_items(missing: list[str]) -> Iterator[Item]:
        for image, maps in _label_maps(predictions(missing), job.crf, job.workers, device):
            yield Item(image, maps, {"size": sizes[image]}, keys[image])

    def plane_items(missing: list[str]) -> Iterator[Item]:
        if job.crf is None or _is_on_gpu(job.crf, device) or labels > planes.MOST_LABELS:
            for item in label_items(missing):
                yield planes.done_item(item.id, item.arrays, sizes[item.id], item.key)
            return
        for image, prediction in predictions(missing):
            yield planes.planes_item(image, prediction, job.crf, sizes[image], keys[image])

    if planes_to is not None:
        _hand_over(job, planes_to, keys, plane_items)
        return
    write_items(
        job.out,
        kind=_KIND,
        keys=keys,
        provenance=job.provenance,
        compute=label_items,
        description=job.description,
    )


def _hand_over(
    job: PredictionJob,
    path: Path,
    keys: Mapping[str, str],
    compute: Callable[[list[str]], Iterable[Item]],
) -> None:
    """Write the file for `finish`: an item per image, empty where the shard's cache has it."""
    with (
        closing(ItemCache(job.out, kind=_KIND)) as cache,
        ShardWriter(path, kind=planes.KIND, ids=list(keys), provenance=job.provenance) as writer,
    ):
        missing = []
        for image, key in keys.items():
            if cache.find(image, key):
                writer.add(planes.reused_item(image, job.sizes[image], key))
            else:
                missing.append(image)
        items = track(compute(missing), total=len(missing), description=job.description)
        # The GPU goes on while this thread compresses.
        for _ in ordered_map(writer.add, items, threads=1):
            pass


def finish(job: PredictionJob, path: Path, *, max_pixels: int) -> None:
    """Write a shard from what the job with the network handed over.

    The shard has the keys and the provenance that the other job gave it.

    Args:
        path: what `write_predictions` wrote to ``planes_to``.
        max_pixels: see `wsss.data.images.read.read_image`.

    Raises:
        ArtifactError: the file is missing, damaged, or made for another shard, settings or code.
        ImageError: a photo cannot be read, or is another one than before.
    """
    with Shard(path, kind=planes.KIND) as handed:
        _refuse_another(job, path, handed)
        write_items(
            job.out,
            kind=_KIND,
            keys={image: handed.key(image) for image in handed.ids},
            provenance=handed.provenance,
            compute=lambda missing: _finished(job, handed, missing, max_pixels),
            description=job.description,
        )


def _finished(
    job: PredictionJob, handed: Shard, missing: list[str], max_pixels: int
) -> Iterator[Item]:
    """The items of images that the shard's cache lacks."""
    by_id, waiting = {sample.id: sample for sample in job.samples}, []
    for image in missing:
        attrs = handed.attrs(image)
        if planes.is_reused(attrs):
            raise ArtifactError(
                f"{handed.path}: {image!r} was to be copied from the cache of {job.out}, which has "
                f"gone; delete {handed.path} and run the same command again"
            )
        if planes.is_done(attrs):
            maps = handed.read(image).arrays
            yield Item(image, maps, {"size": job.sizes[image]}, handed.key(image))
        else:
            waiting.append(image)

    def predictions() -> Iterator[tuple[str, Prediction]]:
        for image in waiting:
            sample = by_id[image]
            photo = read_image(sample.path, digest=sample.digest, max_pixels=max_pixels)
            yield image, planes.prediction_of(handed.read(image), photo)

    for image, maps in _label_maps(predictions(), job.crf, job.workers, "cpu"):
        yield Item(image, maps, {"size": job.sizes[image]}, handed.key(image))


def _refuse_another(job: PredictionJob, path: Path, handed: Shard) -> None:
    """The device and its precision may differ; what the CRF reads may not."""
    stored, expected = handed.provenance, job.provenance
    alike = all(
        getattr(stored, name) == getattr(expected, name)
        for name in ("stage", "code", "weights", "inputs")
    )
    images = [sample.id for sample in job.samples]
    if not alike or handed.ids != images or any(setting_differences(stored, expected)):
        raise ArtifactError(
            f"{path}: was made for other images, settings, weights or code than {job.out} asks "
            f"for; delete {path} and run the same command again"
        )


def _is_on_gpu(crf: CrfConfig, device: str) -> bool:
    """Whether the CRF runs on the GPU of the network."""
    return crf.backend == "torch" and device.startswith("cuda")


def _label_maps(
    predictions: Predictions, crf: CrfConfig | None, workers: int, device: str
) -> Iterator[tuple[str, dict[str, UInt8[np.ndarray, "height width"]]]]:
    """On a GPU, or in processes."""
    if crf is not None and _is_on_gpu(crf, device):
        from wsss.labels.device_crf import label_maps_on

        yield from label_maps_on(device, predictions, crf)
        return
    with WorkerPool(workers if crf else 1) as pool:
        yield from pool.map(functools.partial(label_maps, crf=crf), predictions)
