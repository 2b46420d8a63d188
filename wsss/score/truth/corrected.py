"""Corrected masks of some training images, as masks to learn from: ``retrain.corrected``.

The segmenter learns from them in place of the pseudo masks of these images. Like all masks to learn
from that hold pixel labels, they are a kind of shard of their own, and what is made from them is
labelled as of mixed supervision.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path

from wsss.artifacts import watch
from wsss.artifacts.digest import digest_file, digest_json
from wsss.artifacts.stage import STAGES
from wsss.artifacts.watch import Stamp, files_below, stamps_of, write_record
from wsss.config.base import MIXED
from wsss.config.compute import ComputeConfig
from wsss.config.errors import ConfigError
from wsss.config.paths import expand_path
from wsss.data.counted import first_names
from wsss.data.datasets.classes import unicode_form
from wsss.data.manifest_folder import load, manifest_digests
from wsss.score.truth.errors import TruthError
from wsss.score.truth.find import Truth, named_pngs
from wsss.score.truth.training_masks import write_masks

RECORD = "inputs.json"
"""Next to the shard: the PNGs that were read, by which the workflow notices changes."""
_log = logging.getLogger(__name__)
_SPLIT = "train"


def run(
    manifest_dir: Path, out: Path, *, corrected: str, compute: ComputeConfig, state: str = ""
) -> int:
    """Write the corrected masks of training images.

    Items of ``out`` are as those of `wsss.score.truth.training_masks.run`, for images that have a
    corrected mask alone.

    Args:
        out: shard of kind ``corrected_masks`` to write.
        corrected: folder of PNGs, ``<corrected>/<id>.png``.
        state: of the PNGs, as the workflow saw them, for the record (`wsss.artifacts.watch`).

    Returns:
        Their number.

    Raises:
        ConfigError: no folder is configured.
        TruthError: the folder is not there or holds no mask of a training image, or a mask is of
            another size than its image, or has labels that the class list does not have.
        ArtifactError: the manifest is missing or damaged.
    """
    if not corrected:
        raise ConfigError("retrain.corrected names no folder: set it to the folder of masks")
    started = time.time_ns()
    stamps = _stamps(corrected)
    folder = expand_path(corrected)
    manifest, classes = load(manifest_dir)
    members = manifest.split(_SPLIT)
    sources = named_pngs(folder, [sample.id for sample in members])
    if not sources:
        reason = "holds no mask of a training image" if folder.is_dir() else "no such folder"
        raise TruthError(
            f"{folder}: {reason}; expected <id>.png, e.g. {next(iter(members)).id}.png "
            "(retrain.corrected)"
        )
    _name_strangers(folder, stamps, (sample.id for sample in manifest))
    samples = {sample.id: sample for sample in members if sample.id in sources}
    digests = {image: digest_file(source.path) for image, source in sources.items()}
    provenance = STAGES["corrected_masks"].provenance(
        {"corrected": corrected},
        inputs=manifest_digests(manifest_dir) | {"truth": digest_json(digests)},
    )
    truth = Truth(str(folder), dict(sources))
    write_masks(out, truth, samples, classes, digests, provenance, MIXED, compute.workers)
    by_path = {str(sources[image].path): digest for image, digest in digests.items()}
    write_record(out.with_name(RECORD), state, stamps, by_path, started)
    _log.info("%d of %d training images have a corrected mask", len(samples), len(members))
    return len(samples)


def corrections_state(corrected: str, folder: str, *, remember: bool = True) -> str:
    """A text that changes when corrected masks are added, removed or edited; the workflow asks.

    Args:
        corrected: ``retrain.corrected``.
        folder: that holds what `run` wrote.
        remember: see `wsss.artifacts.watch.state`.
    """
    return watch.state(_stamps(corrected), Path(folder, RECORD), remember=remember)


def _stamps(corrected: str) -> dict[str, Stamp]:
    """The PNGs below a folder of corrected masks, each with size and times."""
    entries = (e for e in files_below(expand_path(corrected)) if e.name.lower().endswith(".png"))
    return stamps_of(entries)


def _name_strangers(folder: Path, paths: Iterable[str], images: Iterable[str]) -> None:
    """Warn of PNGs that belong to no image: a mistake in their names."""
    ids = set(images)
    names = [unicode_form(os.path.relpath(path, folder)).removesuffix(".png") for path in paths]
    if strangers := sorted(name for name in names if name not in ids):
        _log.warning(
            "%s: %d PNGs belong to no image of the data set and are not used: %s",
            *(folder, len(strangers), first_names(strangers)),
        )
