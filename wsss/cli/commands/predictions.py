"""Label maps of refiners and segmenters as sub-commands, in one job or in two."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.options import (
    DEFAULT_CACHE,
    DEFAULT_CONFIG,
    WHOLE,
    Batch,
    Cache,
    ConfigFiles,
    Device,
    ManifestDir,
    Precision,
    Refiner,
    Shard,
    Split,
    Workers,
    parse_shard,
    stage_values,
)

PlanesTo = Annotated[
    Path | None,
    typer.Option(help="Write this instead of the shard: what `--planes` goes on from."),
]
Planes = Annotated[
    Path | None,
    typer.Option(help="Written by `--planes-to`: run the CRFs alone, on CPUs, and no network."),
]


def _refuse_both(planes_to: Path | None, planes: Path | None) -> None:
    if planes_to is not None and planes is not None:
        raise typer.BadParameter("--planes-to and --planes are of two jobs; give one of them")


def refine_predict(
    manifest: ManifestDir,
    checkpoint: Refiner,
    out: Annotated[Path, typer.Option(help="HDF5 shard of label maps to write.")],
    split: Split = "val",
    shard: Shard = WHOLE,
    planes_to: PlanesTo = None,
    planes: Planes = None,
    cache: Cache = DEFAULT_CACHE,
    config: ConfigFiles = DEFAULT_CONFIG,
    device: Device = "",
    precision: Precision = "",
    workers: Workers = 0,
) -> None:
    """Label maps of the refiner itself, without tags. Protocols are those of `predict`."""
    _refuse_both(planes_to, planes)
    from wsss.refine.predict import predict

    values = stage_values(
        "refine_predict", config, device=device, precision=precision, workers=workers
    )
    files = (checkpoint, out, cache, planes_to, planes)
    predict(manifest, split, parse_shard(shard), *files, **values)


def retrain_predict(
    manifest: ManifestDir,
    checkpoint: Annotated[Path, typer.Option(help="Weights of `wsss retrain`.")],
    out: Annotated[Path, typer.Option(help="HDF5 shard of label maps to write.")],
    split: Split = "val",
    shard: Shard = WHOLE,
    planes_to: PlanesTo = None,
    planes: Planes = None,
    config: ConfigFiles = DEFAULT_CONFIG,
    device: Device = "",
    precision: Precision = "",
    batch: Batch = 0,
    workers: Workers = 0,
) -> None:
    """Label maps of the segmenter: single scale, multi-scale + flip, each with and without CRF."""
    _refuse_both(planes_to, planes)
    from wsss.retrain.predict import run

    values = stage_values(
        "predict", config, device=device, precision=precision, batch=batch, workers=workers
    )
    run(manifest, split, parse_shard(shard), checkpoint, out, planes_to, planes, **values)
