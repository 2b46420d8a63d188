"""The stage `gallery`: masks of a run as files that one looks at, reviews and hands on."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from wsss.artifacts.digest import digest_json
from wsss.artifacts.progress import track
from wsss.artifacts.shard import Shard
from wsss.artifacts.stage import STAGES
from wsss.compute.pool import WorkerPool
from wsss.config.compute import ComputeConfig
from wsss.data.ingest.triage import read_quarantine
from wsss.data.manifest import Sample
from wsss.data.manifest_folder import QUARANTINE, load, manifest_digests
from wsss.photos.classes import read_class_table
from wsss.photos.drawing import DrawingTask, draw_task
from wsss.photos.record import Entry, LeftOut, Tag
from wsss.photos.review import is_narrow
from wsss.photos.tree import ResultTree


def run(
    manifest_dir: Path,
    masks: Sequence[Path],
    cams: Sequence[Path],
    folder: Path,
    record: Path,
    *,
    name: str,
    max_pixels: int,
    long_side: int | None,
    compute: ComputeConfig,
) -> None:
    """Write masks, overlays, thumbnails, class table, review table and gallery of a run.

    Photos that did not change are not drawn again, nor are those of an interrupted run. Files of
    photos that are gone are removed.

    Args:
        cams: shards of CAMs, for CLIP's probabilities.
        folder: to write to. Labels keep ids and colours of its class table.
        record: file to write that says what the folder shows.
        name: of the run, as title.
        max_pixels: largest photo that is read.
        long_side: that photos were scaled to for CLIP, pixels; None: they kept their size.

    Raises:
        ArtifactError: a shard or the class table is damaged, or a mask does not fit its photo.
        WorkerError: a photo cannot be read, or has changed since ingest.
        WriteError: there is no space or no right to write.
    """
    manifest, class_list = load(manifest_dir)
    classes = read_class_table(folder).with_classes(class_list.names)
    labels = classes.labels(class_list.names)
    lookup = np.zeros(256, np.uint8)
    lookup[1 : len(labels) + 1] = labels
    sources, mask_keys, inputs = _items(masks)
    probabilities = _probabilities(cams)
    samples = [sample for sample in manifest if sample.id in sources]
    used = {sample.path for sample in manifest}
    left_out = [
        LeftOut(str(row.file), row.reason)
        for row in read_quarantine(manifest_dir / QUARANTINE)
        if row.file not in used
    ]
    inputs["left_out"] = digest_json([[photo.photo, photo.reason] for photo in left_out])
    provenance = STAGES["gallery"].provenance(
        {"name": name, "max_pixels": max_pixels, "long_side": long_side},
        inputs=inputs | manifest_digests(manifest_dir),
    )
    colours = [classes.colours[label] for label in labels]

    def key(sample: Sample) -> str:
        probs = probabilities.get(sample.id, {})
        of_tags = [(labels[tag], colours[tag], probs.get(tag)) for tag in sample.tags]
        return digest_json([provenance.code, sample.digest, mask_keys[sample.id], of_tags])

    keys = {sample.id: key(sample) for sample in samples}
    tree = ResultTree(folder, record)
    unchanged = tree.unchanged(keys, {sample.id: str(sample.path) for sample in samples})
    tree.begin()

    def drawn_entries() -> Iterator[Entry]:
        todo = [sample for sample in samples if sample.id not in unchanged]
        draw = functools.partial(
            draw_task, folder=folder, palette=classes.palette(), max_pixels=max_pixels
        )
        tasks = ((s.id, DrawingTask(s, sources[s.id], lookup)) for s in todo)
        with WorkerPool(min(compute.workers, len(todo) // 8 + 1)) as pool:
            drawn = track(pool.map(draw, tasks), total=len(todo), description="Drawing photos")
            for sample, (_, (files, unsure)) in zip(todo, drawn, strict=True):
                yield Entry(
                    id=sample.id,
                    photo=str(sample.path),
                    size=(sample.width, sample.height),
                    key=keys[sample.id],
                    tags=tuple(
                        Tag(labels[tag], probabilities.get(sample.id, {}).get(tag))
                        for tag in sample.tags
                    ),
                    shares=files.shares,
                    unsure=unsure,
                    grid=files.grid,
                    runs=files.runs,
                    files=files.files,
                    narrow=is_narrow(sample.width, sample.height, long_side),
                )

    by_id = dict(unchanged)
    for entry in drawn_entries():
        tree.add(entry)
        by_id[entry.id] = entry
    tree.finish(name, [by_id[sample.id] for sample in samples], classes, provenance, left_out)


def _items(masks: Sequence[Path]) -> tuple[dict[str, Path], dict[str, str], dict[str, str]]:
    """The shard and the key of each image, and the digests of the shards."""
    sources: dict[str, Path] = {}
    keys: dict[str, str] = {}
    digests: dict[str, str] = {}
    for path in masks:
        with Shard(path, kind="masks") as shard:
            digests[str(path)] = shard.content
            for image in shard.ids:
                sources[image], keys[image] = path, shard.key(image)
    return sources, keys, digests


def _probabilities(paths: Sequence[Path]) -> dict[str, dict[int, float]]:
    """CLIP's probability of each tag of each image; nothing where the CAMs have none."""
    by_image: dict[str, dict[int, float]] = {}
    for path in paths:
        with Shard(path, kind="cams") as shard:
            for image in shard.ids:
                attrs = shard.attrs(image)
                probs = attrs.get("probabilities", ())  # external CAMs have none
                by_image[image] = dict(zip(attrs["classes"], probs, strict=False))
    return by_image
