"""The stage `refine_predict`: label maps of one part of a split by the refiner itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Unpack

from wsss.artifacts.checkpoint_header import checkpoint_weights
from wsss.artifacts.stage import STAGES
from wsss.compute.precision import on_device
from wsss.config.infer import InferConfig
from wsss.config.labels import CrfConfig
from wsss.data.manifest import Sample
from wsss.data.manifest_folder import load, manifest_digests
from wsss.labels.candidates import batch_candidates
from wsss.labels.prediction import Prediction
from wsss.labels.prediction_shards import PredictionJob, finish, write_predictions
from wsss.refine.items import refiner_key
from wsss.refine.load import Sections, configured_refiner, load_state, refiner_sources
from wsss.refine.photo_scaler import Photo
from wsss.refine.photos import on_photos, seed_for
from wsss.refine.registry import method_modules


@on_device()
def predict(
    manifest_dir: Path,
    split: str,
    shard: tuple[int, int],
    checkpoint: Path,
    out: Path,
    cache: Path,
    planes_to: Path | None = None,
    planes: Path | None = None,
    *,
    infer: InferConfig,
    crf: CrfConfig,
    **sections: Unpack[Sections],
) -> None:
    """Let the refiner predict the labels of one part of a split by itself, without tags.

    Items have the arrays of `wsss.retrain.predict.run`: ``single``, ``multi`` (all
    ``infer.scales`` and mirroring) and, with ``infer.crf``, both after a dense CRF with the
    settings of ``masks.crf``.

    Args:
        split: ``train`` or ``val``.
        shard: part and number of parts, 1-based.
        checkpoint: what `wsss.refine.stage.train` wrote.
        out: shard of kind ``predictions`` to write.
        cache: folder for downloads and text embeddings.
        planes_to, planes: see `wsss.retrain.predict.run`.
        crf: ``masks.crf``.

    Raises:
        ArtifactError: the checkpoint is missing, damaged, or of another refiner, or ``planes`` are
            of another shard.
    """
    refine = sections["refine"]
    manifest, classes = load(manifest_dir)
    samples = tuple(manifest.split(split).shard(*shard))
    provenance = STAGES["refine_predict"].provenance(
        {"infer": infer, "crf": crf, **sections},
        modules=method_modules(refine.method, sections["cams"]),
        weights=checkpoint_weights(checkpoint, refine.method),
        inputs=manifest_digests(manifest_dir),
        sources=refiner_sources(checkpoint, sections),
    )
    job = PredictionJob(
        out,
        samples,
        provenance,
        crf=crf if infer.crf else None,
        workers=sections["compute"].workers,
        description=f"prediction of {split}",
    )
    if planes is not None:
        finish(job, planes, max_pixels=sections["max_pixels"])
        return
    refiner = configured_refiner(sections, classes, cache, infer=infer)
    load_state(refiner, checkpoint, refine.method)

    def predicted(photo: Photo, sample: Sample) -> tuple[str, Prediction]:
        seed_for(refiner, sample)
        probs = {name: p[None] for name, p in refiner.probabilities(photo).items()}
        (protocols,) = batch_candidates(probs, infer.crf_labels if infer.crf else None)
        return sample.id, Prediction(photo, protocols)

    def predictions(some: list[Sample]) -> Iterator[tuple[str, Prediction]]:
        subjects = ((sample, sample) for sample in some)
        inputs, in_turn = refiner.setup.encoder_input, refiner.draws_at_inference
        return on_photos(inputs, subjects, predicted, in_turn=in_turn)

    write_predictions(
        job,
        predictions,
        key=refiner_key(provenance, refiner),
        device=str(refiner.encoder.device),
        planes_to=planes_to,
        labels=len(classes.names) + 1 if infer.crf_labels == "all" else 0,
    )
