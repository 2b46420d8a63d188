"""Shards of predicted label maps: what a segmenter, or a refiner, says of images by itself."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

from wsss.artifacts.digest import digest_json
from wsss.artifacts.progress import track
from wsss.artifacts.provenance import Provenance
from wsss.artifacts.shard import Item, ShardWriter
from wsss.compute.pool import WorkerPool
from wsss.config.labels import CrfConfig
from wsss.data.manifest import Sample
from wsss.labels.prediction import Prediction, label_maps


def write_predictions(
    out: Path,
    samples: Sequence[Sample],
    found: Iterable[tuple[str, Prediction]],
    made_of: Provenance,
    *,
    crf: CrfConfig | None,
    workers: int,
    description: str,
) -> None:
    """Write a shard of kind ``predictions``: a label map a protocol, uint8 at image size.

    Args:
        out: the shard.
        samples: its images.
        found: id and prediction of each of them, in any order.
        made_of: the shard's provenance.
        crf: adds ``<protocol>_crf``, after a dense CRF with these settings; None for none.
        workers: processes that run CRFs.
        description: said beside the progress.
    """
    by_id = {sample.id: sample for sample in samples}
    key = made_of.key()
    with (
        ShardWriter(out, kind="predictions", ids=list(by_id), provenance=made_of) as writer,
        WorkerPool(workers if crf else 1) as pool,
    ):
        maps = pool.map(functools.partial(label_maps, crf=crf), found)
        for image, arrays in track(maps, total=len(samples), description=description):
            sample = by_id[image]
            item_key = digest_json([key, sample.digest, list(sample.tags)])
            writer.add(Item(image, arrays, {"size": [sample.height, sample.width]}, item_key))
