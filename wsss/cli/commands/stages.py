"""The stages as sub-commands, in the order of the chain.

Each command imports its stage when it runs, so that `wsss --help` answers at once.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from wsss.artifacts.atomic import atomic_path
from wsss.artifacts.shard import Shard as StoredShard
from wsss.cli.commands.predictions import refine_predict, retrain_predict
from wsss.cli.options import (
    DEFAULT_CACHE,
    DEFAULT_CONFIG,
    WHOLE,
    Batch,
    Cache,
    CamShard,
    ConfigFiles,
    Device,
    LossCurve,
    ManifestDir,
    PngFolder,
    Precision,
    Refiner,
    SeedShards,
    Shard,
    Split,
    Workers,
    WorkFolder,
    parse_shard,
    stage_values,
)

PANEL = "Stages, in order"


def ingest(
    out: Annotated[
        Path, typer.Option(help="Folder to write: manifest, quarantine table, class list.")
    ],
    test_list: Annotated[
        str,
        typer.Option(help="Only this list, as the split test: images to predict, e.g. VOC's test."),
    ] = "",
    state: Annotated[
        str, typer.Option(help="Used by the workflow: the state of the files.", hidden=True)
    ] = "",
    config: ConfigFiles = DEFAULT_CONFIG,
    workers: Workers = 0,
) -> None:
    """Decode every image, list what can be used and quarantine the rest.

    Writes manifest.csv (id, split, path, size, digest, tags), quarantine.csv (file, reason) and
    classes.json. Fails, after writing the quarantine table, when too large a share cannot be used.
    """
    from wsss.data.ingest.stage import ingest as run

    values = stage_values("ingest", config, workers=workers)
    run(out, test_list=test_list, state=state, **values)


def tag_noise(
    given: Annotated[Path, typer.Argument(help="What `wsss ingest` wrote.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder to write: the manifest with other tags.")],
    cache: Cache = DEFAULT_CACHE,
    config: ConfigFiles = DEFAULT_CONFIG,
    device: Device = "",
    precision: Precision = "",
) -> None:
    """Change the tags on purpose: drop some, add wrong ones, or take CLIP's (tag_noise)."""
    from wsss.clip.tags.stage import run

    run(given, out, cache, **stage_values("tag_noise", config, device=device, precision=precision))


def cams(
    manifest: ManifestDir,
    out: Annotated[Path, typer.Option(help="HDF5 shard to write.")],
    split: Split = "train",
    shard: Shard = WHOLE,
    cache: Cache = DEFAULT_CACHE,
    config: ConfigFiles = DEFAULT_CONFIG,
    device: Device = "",
    precision: Precision = "",
    batch: Batch = 0,
    workers: Workers = 0,
) -> None:
    """Class activation maps of one part of a split, on the patch grid."""
    from wsss.cams.stage import run

    values = stage_values(
        "cams", config, device=device, precision=precision, batch=batch, workers=workers
    )
    run(manifest, split, parse_shard(shard), out, cache, **values)


def seeds(
    cams: CamShard,
    manifest: ManifestDir,
    out: Annotated[Path, typer.Option(help="HDF5 shard of seeds to write.")],
    png: PngFolder,
    split: Split = "train",
    config: ConfigFiles = DEFAULT_CONFIG,
    workers: Workers = 0,
) -> None:
    """Hard labels from one shard of CAMs, for a refiner that learns from them (weakclip)."""
    from wsss.masks.seeds_stage import run

    values = stage_values("seeds", config, workers=workers)
    run(manifest, split, cams, out, png, **values)


def refine_train(
    shards: Annotated[
        list[Path],
        typer.Argument(
            help="CAM shards of the train split, or with supervision: masks those of `wsss truth "
            "training-masks`.",
            show_default=False,
        ),
    ],
    manifest: ManifestDir,
    out: Annotated[Path, typer.Option(help="Checkpoint to write (safetensors).")],
    log: LossCurve,
    work: WorkFolder,
    seeds: SeedShards = [],  # noqa: B006
    efficiency: Annotated[
        Path | None, typer.Option(help="Cost of the training, to write (JSON).")
    ] = None,
    cache: Cache = DEFAULT_CACHE,
    config: ConfigFiles = DEFAULT_CONFIG,
    device: Device = "",
    precision: Precision = "",
    workers: Workers = 0,
) -> None:
    """Train the refiner on CAMs or seeds (refine.method, unless it is none)."""
    values = stage_values(
        "refine_train", config, device=device, precision=precision, workers=workers
    )
    if not values["refine"].is_trained:
        typer.echo("refine.method is none: nothing is trained", err=True)
        return
    from wsss.refine.stage import train

    train(manifest, shards, out, log, work, cache, seeds, efficiency, **values)


def refine_import(
    manifest: ManifestDir,
    out: Annotated[Path, typer.Option(help="Checkpoint to write (safetensors).")],
    file: Annotated[
        Path | None,
        typer.Argument(
            help="What the authors released (.pth, .safetensors), by default refine.checkpoint.",
            show_default=False,
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Report to write (JSON): what became of every tensor.")
    ] = None,
    leave_out: Annotated[
        list[str], typer.Option(help="Leave out entries whose names begin so (repeat).")
    ] = [],  # noqa: B006
    cache: Cache = DEFAULT_CACHE,
    config: ConfigFiles = DEFAULT_CONFIG,
) -> None:
    """Import what the released code of weakclip or excel wrote, instead of training."""
    from wsss.refine.released.importer import import_checkpoint

    values = stage_values("refine_import", config, device="cpu")
    args = (manifest, file, out, cache)
    import_checkpoint(*args, report=report, leave_out=leave_out, **values)


def refine_apply(
    cams: CamShard,
    manifest: ManifestDir,
    checkpoint: Refiner,
    out: Annotated[Path, typer.Option(help="HDF5 shard of class scores to write.")],
    split: Split = "train",
    cache: Cache = DEFAULT_CACHE,
    config: ConfigFiles = DEFAULT_CONFIG,
    device: Device = "",
    precision: Precision = "",
    batch: Batch = 0,
    workers: Workers = 0,
) -> None:
    """Class scores of one shard: from the refiner, or the CAMs themselves (refine.method: none)."""
    values = stage_values(
        "refine_apply", config, device=device, precision=precision, batch=batch, workers=workers
    )
    if not values["refine"].is_trained:
        typer.echo("refine.method is none: the CAMs are passed on", err=True)
        with StoredShard(cams, kind="cams"), atomic_path(out) as temporary:
            shutil.copyfile(cams, temporary)
        return
    from wsss.refine.stage import apply

    apply(manifest, split, cams, checkpoint, out, cache, **values)


def masks(
    scores: Annotated[Path, typer.Argument(help="One shard of class scores.", show_default=False)],
    manifest: ManifestDir,
    out: Annotated[Path, typer.Option(help="HDF5 shard of masks to write.")],
    png: PngFolder,
    config: ConfigFiles = DEFAULT_CONFIG,
    workers: Workers = 0,
) -> None:
    """Pseudo masks of one shard: background rule, dense CRF, ignore band."""
    from wsss.masks.stage import run

    run(manifest, scores, out, png, **stage_values("masks", config, workers=workers))


def retrain(
    masks: Annotated[
        list[Path],
        typer.Argument(
            help="Mask shards of the train split, or with supervision: masks those of `wsss truth "
            "training-masks`.",
            show_default=False,
        ),
    ],
    manifest: ManifestDir,
    out: Annotated[Path, typer.Option(help="Weights to write (safetensors).")],
    log: LossCurve,
    work: WorkFolder,
    corrected: Annotated[
        Path | None,
        typer.Option(help="Shard of `wsss truth corrected-masks`, only with retrain.corrected."),
    ] = None,
    cache: Cache = DEFAULT_CACHE,
    config: ConfigFiles = DEFAULT_CONFIG,
    device: Device = "",
    precision: Precision = "",
    workers: Workers = 0,
) -> None:
    """Train the segmenter on the pseudo masks or, with supervision: masks, on pixel labels."""
    from wsss.retrain.train import train

    values = stage_values("retrain", config, device=device, precision=precision, workers=workers)
    train(manifest, masks, out, log, work, cache, corrected, **values)


def register(app: typer.Typer) -> None:
    """Add the stages to the command line."""
    refine = (refine_train, refine_import, refine_apply, refine_predict)
    for command in (ingest, tag_noise, cams, seeds, *refine, masks, retrain, retrain_predict):
        app.command(rich_help_panel=PANEL)(command)
