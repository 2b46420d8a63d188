"""The refine stage: train the configured refiner, refine one shard of CAMs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Unpack

from wsss.artifacts.checkpoint_header import checkpoint_weights
from wsss.artifacts.digest import digest_json
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.item_cache import write_items
from wsss.artifacts.shard import Item
from wsss.artifacts.stage import STAGES
from wsss.artifacts.training import joint_training, state_folder, write_training
from wsss.compute.device import pick_device
from wsss.compute.precision import on_device
from wsss.config.base import with_supervision
from wsss.config.infer import InferConfig
from wsss.config.paths import expand_path
from wsss.data.datasets.voc import list_ids
from wsss.data.manifest_folder import load, manifest_digests
from wsss.refine.inputs import CamSet, ImageCams, SeedSet, ShardSet, TruthSet
from wsss.refine.items import identity, refiner_key, scores_item
from wsss.refine.load import Sections, configured_refiner, load_state, model_facts, refiner_sources
from wsss.refine.photo_scaler import Photo
from wsss.refine.photos import on_photos, seed_for
from wsss.refine.registry import METHODS, method_modules
from wsss.refine.training.efficiency import write_efficiency
from wsss.refine.training.run import train as run_training
from wsss.refine.training.snapshots import FOLDER, Snapshots


@on_device(fixed_sizes=True)
def train(
    manifest_dir: Path,
    shards: list[Path],
    out: Path,
    log: Path,
    work: Path,
    cache: Path,
    seed_shards: list[Path] | None = None,
    efficiency: Path | None = None,
    *,
    seed: int,
    **sections: Unpack[Sections],
) -> None:
    """Train the refiner on the train split and write its checkpoint.

    It learns from CAMs, perhaps by way of seeds; with ``supervision: masks`` from the truth.

    With ``refine.train.snapshots_every`` states of earlier steps are kept in `FOLDER` next to it.

    With a launcher such as torchrun (one process per GPU; `wsss launch`) the processes share each
    batch, and only the first one writes.

    Args:
        shards: CAM shards that together hold every training image; with ``supervision: masks``
            those of `wsss.score.truth.training_masks`.
        out: checkpoint to write (safetensors).
        log: CSV to write, one row per step: ``step``, ``loss``, ``lr`` and the parts of the loss.
        work: folder for what an interrupted training resumes from.
        cache: folder for downloads and text embeddings.
        seed_shards: seed shards of every training image, for a refiner that learns from seeds.
        efficiency: JSON to write what the training cost to.

    Raises:
        ArtifactError: a shard is missing or damaged, or a training image has no CAM or no seed.
        ValueError: ``refine.method`` is none, or ``refine.checkpoint`` names what is to be
            imported instead.
    """
    refine, supervision = sections["refine"], sections["supervision"]
    if refine.checkpoint is not None:
        raise ValueError(
            f"refine.checkpoint is {refine.checkpoint!r}, so nothing is trained; run "
            "refine-import, or set it to null"
        )
    if not refine.is_trained:
        raise ValueError("refine.method is none: CAMs are used as they are; choose a method")
    manifest, classes = load(manifest_dir)
    with ExitStack() as stack:
        first = stack.enter_context(joint_training(work, pick_device(sections["compute"].device)))
        samples = manifest.split("train")
        images: CamSet | TruthSet
        images = TruthSet(shards, samples) if supervision == "masks" else CamSet(shards, samples)
        stack.enter_context(images)
        sets: dict[str, ShardSet] = {"CAM" if supervision == "tags" else "pixel label": images}
        seeds = None
        if refine.needs_seeds and supervision == "tags":
            seeds = stack.enter_context(SeedSet(seed_shards or [], samples))
            sets["seed"] = seeds
        for name, of_kind in sets.items():
            if missing := of_kind.missing():
                raise ArtifactError(
                    f"{len(missing)} training images have no {name}, e.g. {missing[0]!r}; pass all "
                    f"{name} shards of the train split"
                )
        refiner = configured_refiner(sections, classes, cache, seed=seed)
        provenance = STAGES["refine_train"].provenance(
            {"seed": seed, **sections},
            modules=method_modules(refine.method, sections["cams"]),
            weights=images.weights | refiner.frozen_weights(),
            inputs=manifest_digests(manifest_dir)
            | {n: digest for of_kind in sets.values() for n, digest in of_kind.inputs.items()},
            sources=images.provenances | (seeds.provenances if seeds else {}),
        )
        name = refine.options.repeated if sections["kind"] == "voc" else ""
        listed = list_ids(name, expand_path(sections["root"])) if name else ()
        repeated = frozenset(images.ids).intersection(listed)
        learned = {
            "images": [identity(images.sample(image)) for image in images.ids],
            "repeated": sorted(repeated),
            "classes": asdict(classes),
            "texts": refiner.texts(),
        } | {name: of_kind.content for name, of_kind in sets.items()}
        key, facts = provenance.training_key(learned), model_facts(classes)
        snapshots = None
        if every := refine.train.snapshots_every:
            last, folder = refine.train.iterations, out.parent / FOLDER
            snapshots = Snapshots(folder, every, last, provenance, key, facts)
        if sections["compute"].save_memory:
            refiner.save_memory()
        result = run_training(
            refiner,
            images,
            seeds,
            refine.train,
            title=with_supervision(METHODS[refine.method].title, supervision),
            seed=seed,
            key=key,
            work=state_folder(work, key),
            cache=cache,
            workers=sections["compute"].workers,
            repeated=repeated,
            snapshots=snapshots,
        )
        if first:
            if efficiency is not None:
                write_efficiency(efficiency, result.efficiency, provenance.digest())
            write_training(out, log, result.tensors, result.curve, provenance, facts)


@on_device()
def apply(
    manifest_dir: Path,
    split: str,
    cam_shard: Path,
    checkpoint: Path,
    out: Path,
    cache: Path,
    *,
    infer: InferConfig,
    **sections: Unpack[Sections],
) -> None:
    """Write the class scores that the refiner gives one shard of CAMs.

    Items have the array ``score`` float16 [K, h, w], where the refiner has one of its own the array
    ``background`` float16 [h, w], and the attributes ``classes``, ``grid``, ``size`` and ``split``.

    Args:
        split: to which the shard belongs.
        checkpoint: what `train` wrote.
        out: shard of kind ``scores`` to write.
        cache: see `train`.
        infer: what is asked of the refiner.

    Raises:
        ArtifactError: the shard or the checkpoint is missing, damaged, or of another split or
            refiner.
    """
    refine = sections["refine"]
    manifest, classes = load(manifest_dir)
    with CamSet([cam_shard], manifest.split(split)) as images:
        provenance = STAGES["refine_apply"].provenance(
            {"infer": infer, **sections},
            modules=method_modules(refine.method, sections["cams"]),
            weights=images.weights | checkpoint_weights(checkpoint, refine.method),
            inputs=images.inputs | manifest_digests(manifest_dir),
            sources=images.provenances | refiner_sources(checkpoint, sections),
        )
        refiner = configured_refiner(sections, classes, cache, infer=infer)
        load_state(refiner, checkpoint, refine.method)
        key = refiner_key(provenance, refiner)
        keys = {
            image: digest_json([key, split, identity(images.sample(image)), images.key(image)])
            for image in images.ids
        }

        def compute_items(ids: list[str]) -> Iterator[Item]:

            def scored(photo: Photo, image: ImageCams) -> Item:
                seed_for(refiner, image.sample)
                scores = refiner.scores(photo, image.classes, image.initial)
                return scores_item(image, scores, keys[image.sample.id], split)

            subjects = ((image.sample, image) for image in map(images.read, ids))
            yield from on_photos(
                refiner.setup.encoder_input, subjects, scored, in_turn=refiner.draws_at_inference
            )

        write_items(
            out,
            kind="scores",
            keys=keys,
            provenance=provenance,
            compute=compute_items,
            description="Refined scores",
        )
