"""`wsss data …`: check published data sets and rebuild their lists."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from wsss.cli.options import Workers
from wsss.config.load import load_config

app = typer.Typer(
    help="Published data sets: check whether a folder is complete, rebuild lists.",
    no_args_is_help=True,
)


@app.command()
def check(
    root: Annotated[
        Path | None,
        typer.Argument(help="Folder of VOC 2012 or COCO 2014.", show_default=False),
    ] = None,
    kind: Annotated[
        Literal["auto", "voc", "coco"], typer.Option(help="auto: by the folders in it.")
    ] = "auto",
    config: Annotated[
        list[Path],
        typer.Option("--config", "-c", help="Instead of a folder: what this configuration reads."),
    ] = [],  # noqa: B006
    decode: Annotated[
        bool, typer.Option("--decode", help="Decode every image, instead of reading headers.")
    ] = False,
    workers: Workers = 0,
) -> None:
    """Check whether a folder of VOC 2012 or COCO 2014 is complete, and say where to get the rest.

    All that is missing or wrong is listed at once, with exit code 1. Masks must exist but are not
    opened.
    """
    from wsss.data.check.check import CHECKS, check_configured, guess_kind

    if (root is None) == (not config):
        raise typer.BadParameter("give either a folder or --config")
    workers = workers or os.cpu_count() or 1
    if root is None:
        report = check_configured(load_config(*config).data, decode=decode, workers=workers)
    else:
        check_folder = CHECKS[guess_kind(root) if kind == "auto" else kind]
        report = check_folder(root, decode=decode, workers=workers)
    typer.echo(str(report))
    if not report.complete:
        raise typer.Exit(1)


@app.command()
def trainaug(
    voc: Annotated[Path, typer.Argument(help="Folder of VOC 2012.", show_default=False)],
    sbd: Annotated[
        Path,
        typer.Argument(
            help="The folder `dataset` of the Semantic Boundaries Dataset.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="List to write.", show_default="<VOC>/ImageSets/Segmentation/trainaug.txt"
        ),
    ] = None,
) -> None:
    """Write the list trainaug (10,582 ids): VOC train and all of SBD, without VOC val."""
    from wsss.data.datasets.trainaug import write_trainaug

    path, count = write_trainaug(voc, sbd, out)
    typer.echo(f"{count} ids in {path}")
