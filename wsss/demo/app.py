"""`wsss demo …`: draw the demo data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="The embedded demo: a drawn data set, and a small CLIP that understands it.",
    no_args_is_help=True,
)


@app.command()
def make(
    root: Annotated[Path, typer.Argument(help="Folder to write, e.g. results/demo-data.")],
    seed: Annotated[
        int, typer.Option(help="Seed; the same seed gives the same result.", min=0)
    ] = 0,
    train: Annotated[int, typer.Option(help="Number of training images.", min=1)] = 240,
    val: Annotated[int, typer.Option(help="Number of held-out images.", min=1)] = 80,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress bar.")] = False,
) -> None:
    """Draw the data set in VOC's layout, with tags.csv; a finished folder is left alone."""
    from wsss.demo.dataset import generate

    generate(root, seed=seed, train=train, val=val, progress=not quiet)
    typer.echo(f"{train} training and {val} held-out images in {root}")
