"""`wsss data …`: is a published data set complete, and what of it can be rebuilt?"""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.options import Workers
from wsss.config.load import load_config

app = typer.Typer(
    help="Published data sets: check whether a folder is complete, rebuild lists.",
    no_args_is_help=True,
)


class Kind(StrEnum):
    """Data sets with known contents."""

    auto = "auto"
    voc = "voc"
    coco = "coco"


@app.command()
def check(
    root: Annotated[
        Path | None,
        typer.Argument(help="Folder of VOC 2012 or COCO 2014.", show_default=False),
    ] = None,
    kind: Annotated[Kind, typer.Option(help="auto tells it by the folders in it.")] = Kind.auto,
    config: Annotated[
        list[Path],
        typer.Option("--config", "-c", help="Instead: check what this configuration reads."),
    ] = [],  # noqa: B006
    decode: Annotated[
        bool, typer.Option("--decode", help="Decode every image, instead of reading headers.")
    ] = False,
    workers: Workers = 0,
) -> None:
    """Tell whether a folder of VOC 2012 or COCO 2014 is complete, and where to get the rest.

    Everything that is missing or wrong is listed at once; exit code 1 when there is any. Masks are
    looked for but not opened.
    """
    from wsss.data.check.check import KINDS, check_configured, check_folder, guess_kind

    if (root is None) == (not config):
        raise typer.BadParameter("give either a folder or --config")
    number = workers or os.cpu_count() or 1
    if root is None:
        report = check_configured(load_config(*config).data, decode=decode, workers=number)
    else:
        of = guess_kind(root) if kind == Kind.auto else KINDS[kind.value]
        report = check_folder(root, of, decode=decode, workers=number)
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
    """Make the list trainaug (10,582 ids): all of VOC train and of SBD but VOC val."""
    from wsss.data.datasets.trainaug import write_trainaug

    path, count = write_trainaug(voc, sbd, out)
    typer.echo(f"{count} ids in {path}")
