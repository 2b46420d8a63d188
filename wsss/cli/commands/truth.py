"""`wsss truth …`: ground truth in other forms. With scoring, all that opens pixel labels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.options import (
    DEFAULT_CONFIG,
    WHOLE,
    ConfigFiles,
    ManifestDir,
    Shard,
    Workers,
    parse_shard,
    stage_values,
)

app = typer.Typer(
    help="Pixel labels: COCO's masks as PNGs, SBD's masks, tags of masks, masks to learn from.",
    no_args_is_help=True,
)


@app.command()
def coco_masks(
    root: Annotated[Path, typer.Argument(help="Folder of COCO 2014.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder to write train2014/ and val2014/ to.")],
    part: Annotated[list[str], typer.Option(help="train or val (repeat).")] = ["train", "val"],  # noqa: B006
    workers: Workers = 0,
) -> None:
    """Draw COCO's label maps from the instances JSON: palette PNGs, 0, 1 … 80 and 255.

    Smaller instances lie on top, crowd regions are 255: the rule by which scoring draws. Name the
    folder in data.masks, or use it with any other tool. Resumes where it was interrupted.
    """
    from wsss.data.datasets.coco import PARTS
    from wsss.score.truth.coco_masks import draw_part

    for name in part:
        if name not in PARTS:
            raise typer.BadParameter(f"found {name!r}, expected train or val")
    for name in part:
        images, drawn = draw_part(root, name, out, workers=workers or os.cpu_count() or 1)
        typer.echo(f"{name}2014: {images} masks in {out}, {drawn} drawn now")


@app.command()
def sbd_masks(
    voc: Annotated[Path, typer.Argument(help="Folder of VOC 2012.", show_default=False)],
    sbd: Annotated[
        Path,
        typer.Argument(
            help="The folder `dataset` of the Semantic Boundaries Dataset.", show_default=False
        ),
    ],
    name: Annotated[str, typer.Option("--list", help="List of ids.")] = "trainaug",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write.", show_default="<VOC>/SegmentationClassAug"),
    ] = None,
) -> None:
    """Make SegmentationClassAug: VOC's masks where it has them, else SBD's."""
    from wsss.score.truth.sbd_masks import write_sbd_masks

    typer.echo(str(write_sbd_masks(voc, sbd, name=name, out=out)))


@app.command()
def tags(
    out: Annotated[Path, typer.Option(help="Table to write (CSV).")],
    config: ConfigFiles = DEFAULT_CONFIG,
    workers: Workers = 0,
) -> None:
    """Read tags from VOC's masks, for comparison with papers that did so (data.tags: masks).

    This uses pixel labels, if only a little; by default tags come from the annotations.
    """
    from wsss.score.truth.mask_tags import write_mask_tags

    values = stage_values("mask_tags", config, workers=workers)
    typer.echo(str(write_mask_tags(values["data"], out, workers=values["compute"].workers)))


@app.command()
def training_masks(
    manifest: ManifestDir,
    out: Annotated[Path, typer.Option(help="HDF5 shard to write.")],
    shard: Shard = WHOLE,
    config: ConfigFiles = DEFAULT_CONFIG,
    workers: Workers = 0,
) -> None:
    """Pixel labels of the training images as masks to learn from, with supervision: masks alone.

    For the fully supervised upper bound. No weakly supervised stage takes them.
    """
    from wsss.score.truth.training_masks import run

    values = stage_values("truth_masks", config, workers=workers)
    run(manifest, parse_shard(shard), out, **values)
