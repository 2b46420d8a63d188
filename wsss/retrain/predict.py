"""The stage `predict`: label maps of one part of a split by the trained segmenter."""

from __future__ import annotations

from pathlib import Path

from wsss.artifacts.digest import digest_file
from wsss.artifacts.provenance import provenance
from wsss.compute.device import pick_device
from wsss.config.model import Config
from wsss.data.manifest_folder import load
from wsss.labels.predictions import write_predictions
from wsss.retrain.prediction import batch_size, load_segmenter, predictions

_ENTRY = ("wsss.retrain.predict",)


def predict(
    config: Config,
    manifest_dir: Path,
    split: str,
    shard: tuple[int, int],
    checkpoint: Path,
    out: Path,
) -> None:
    """Predict one part of a split: a shard of kind ``predictions``.

    Arrays are uint8 label maps at image size: ``single``, ``multi`` (mean over ``predict.scales``
    and mirroring) and, with ``predict.crf``, ``single_crf`` and ``multi_crf`` (the same after a
    dense CRF with the settings of ``predict.crf_settings``, or else of ``masks.crf``).

    Args:
        config: the sections ``retrain``, ``predict`` and ``masks.crf``.
        manifest_dir: folder that ingest wrote.
        split: ``train`` or ``val``.
        shard: part and number of parts, 1-based.
        checkpoint: what `train` wrote.
        out: the shard.

    Raises:
        ArtifactError: the checkpoint is of another architecture or class list.
    """
    manifest, classes = load(manifest_dir)
    samples = tuple(manifest.split(split).shard(*shard))
    device = pick_device(config.compute.device)
    segmenter = load_segmenter(config, classes, checkpoint, device)
    crf = config.predict.crf_settings or config.masks.crf
    made_of = provenance(
        "predict",
        entry=_ENTRY,
        sections={"retrain": config.retrain, "predict": config.predict, "crf": crf},
        seed=0,  # nothing is random here
        weights={"segmenter": digest_file(checkpoint)},
    )
    write_predictions(
        out,
        samples,
        predictions(config, segmenter, samples, batch=batch_size(config, device)),
        made_of,
        crf=crf if config.predict.crf else None,
        workers=config.compute.workers,
        description=f"predict {split}",
    )
