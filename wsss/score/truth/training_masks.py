"""Pixel labels of training images as training masks: for the supervised upper bound alone.

With ``supervision: masks`` refiners and segmenters are trained on these shards instead of CAMs and
pseudo masks. They are of a kind of their own, which no weakly supervised stage reads, and their
provenance says ``supervision: masks``, as does that of everything that is made from them.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from wsss.artifacts.digest import digest_file, digest_json
from wsss.artifacts.item_cache import write_items
from wsss.artifacts.provenance import Provenance
from wsss.artifacts.shard import Item
from wsss.artifacts.stage import STAGES
from wsss.config.base import UPPER_BOUND, Supervision
from wsss.config.compute import ComputeConfig
from wsss.config.data import DataConfig
from wsss.config.errors import ConfigError
from wsss.data.counted import list_images
from wsss.data.datasets.classes import ClassList
from wsss.data.manifest import Sample
from wsss.data.manifest_folder import load, manifest_digests
from wsss.score.truth.find import Truth, find_truth, read_labels
from wsss.score.truth.sources import PngTruth

_log = logging.getLogger(__name__)
_SPLIT = "train"


def run(
    manifest_dir: Path,
    shard: tuple[int, int],
    out: Path,
    *,
    supervision: Supervision,
    data: DataConfig,
    compute: ComputeConfig,
) -> None:
    """Write the pixel labels of one part of the training images.

    Items of ``out`` have the array ``train`` (0 background, class + 1, 255 void) uint8 [H, W] and
    the attributes ``size`` and ``origin``, which says what they are. In a folder of photos, of
    which a part may lack a mask, an image without one is 255 everywhere: nothing is learned there.

    Args:
        shard: part and number of parts, 1-based.
        out: shard of kind ``truth_masks`` to write.
        supervision: must be ``masks``.

    Raises:
        ConfigError: the run is weakly supervised.
        TruthError: ground truth is missing, of another size than its image, or has labels that the
            class list does not have.
        ArtifactError: the manifest is missing or damaged.
    """
    if supervision != "masks":
        raise ConfigError(
            f"supervision is {supervision}: a weakly supervised run gets no pixel labels to learn "
            f"from; set supervision: masks for a run that is {UPPER_BOUND}"
        )
    manifest, classes = load(manifest_dir)
    samples = {sample.id: sample for sample in manifest.split(_SPLIT).shard(*shard)}
    truth = find_truth(data, manifest.split(_SPLIT), _SPLIT)
    if missing := [image for image in truth.missing if image in samples]:
        _log.warning("%s have no pixel labels; nothing is learned there", list_images(missing))
    digest_of = _digests(truth, samples)
    provenance = STAGES["truth_masks"].provenance(
        {"supervision": supervision, "data": data},
        inputs=manifest_digests(manifest_dir) | {"truth": digest_json(digest_of)},
    )
    write_masks(out, truth, samples, classes, digest_of, provenance, UPPER_BOUND, compute.workers)


def write_masks(
    out: Path,
    truth: Truth,
    samples: Mapping[str, Sample],
    classes: ClassList,
    digest_of: Mapping[str, str],
    provenance: Provenance,
    supervision: str,
    workers: int,
) -> None:
    """Write pixel labels as masks to learn from; an image without truth is 255 everywhere.

    Args:
        out: shard to write; its kind is the stage's name.
        samples: the images, in the order of the shard.
        digest_of: the digest behind the labels of each image.
        supervision: what the items are called.

    Raises:
        TruthError: labels are of another size than their image, or above those of the class list.
    """
    keys = {
        image: digest_json([provenance.key(), sample.digest, classes.names, digest_of[image]])
        for image, sample in samples.items()
    }

    def item(sample: Sample) -> Item:
        labels = read_labels(truth, sample, classes)
        attrs = {"size": list(labels.shape), "origin": f"pixel labels: {supervision}"}
        return Item(sample.id, {"train": labels}, attrs, keys[sample.id])

    def compute_items(images: list[str]) -> Iterator[Item]:
        from wsss.compute.threads import ordered_map  # torch, which the workflow does without

        return ordered_map(item, [samples[image] for image in images], threads=workers)

    write_items(
        out,
        kind=provenance.stage,
        keys=keys,
        provenance=provenance,
        compute=compute_items,
        description="Pixel labels to learn from",
    )


def _digests(truth: Truth, samples: dict[str, Sample]) -> dict[str, str]:
    """Of the file that the truth of each image lies in; empty for an image without truth."""
    digest = functools.cache(digest_file)
    files = [digest(path) for path in truth.files]
    digests = {}
    for image in samples:
        source = truth.sources.get(image)
        if isinstance(source, PngTruth):
            digests[image] = digest(source.path)
        else:
            digests[image] = digest_json(files) if source else ""
    return digests
