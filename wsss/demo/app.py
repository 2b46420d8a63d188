"""`wsss demo …`: draw the demo data set, make its CLIP again from scratch, and measure the CLIP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="The embedded demo: a drawn data set, and a small CLIP that understands it.",
    no_args_is_help=True,
)

Seed = Annotated[int, typer.Option(help="Seed; the same seed gives the same result.", min=0)]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress bar.")]


@app.command()
def make(
    root: Annotated[Path, typer.Argument(help="Folder to write, e.g. results/demo-data.")],
    seed: Seed = 0,
    train: Annotated[int, typer.Option(help="Number of training images.", min=1)] = 240,
    val: Annotated[int, typer.Option(help="Number of held-out images.", min=1)] = 80,
    quiet: Quiet = False,
) -> None:
    """Draw the data set in VOC's layout, with tags.csv; a finished folder is left alone."""
    from wsss.demo.dataset import generate

    generate(root, seed=seed, train=train, val=val, progress=not quiet)
    typer.echo(f"{train} training and {val} held-out images in {root}")


@app.command()
def pretrain(
    out: Annotated[Path, typer.Argument(help="File of weights to write (.safetensors).")],
    seed: Seed = 0,
    scenes: Annotated[
        int | None,
        typer.Option(help="Scenes to draw and learn from.", min=64, show_default="12000"),
    ] = None,
    effort: Annotated[
        float,
        typer.Option(help="Share of all training steps to take; less is for trying out.", min=0),
    ] = 1.0,
    quiet: Quiet = False,
) -> None:
    """Train the demo's CLIP from scratch on drawn scenes and their tags.

    With the default options this makes weights like the shipped ones, in about 37 minutes on two
    idle cores. The demo's own images are never used.
    """
    from dataclasses import replace

    from wsss.demo.bars import bars
    from wsss.demo.pretrain import Recipe
    from wsss.demo.pretrain import pretrain as train

    recipe = Recipe().scaled(effort)
    recipe = replace(recipe, scenes=scenes or recipe.scenes)
    if quiet:
        report = train(out, seed=seed, recipe=recipe)
    else:
        with bars() as progress:
            report = train(out, seed=seed, recipe=recipe, progress=progress)
    typer.echo(json.dumps({k: v for k, v in report.items() if k != "losses"}, indent=2))


@app.command()
def evaluate(
    root: Annotated[Path, typer.Argument(help="Folder made by `wsss demo make`.")],
    weights: Annotated[
        Path | None, typer.Option(help="File of weights.", show_default="the shipped ones")
    ] = None,
    split: Annotated[str, typer.Option(help="train or val.")] = "val",
) -> None:
    """Print how well the CLIP finds the tags without training (mean average precision, 0..1)."""
    from wsss.demo.evaluate import zero_shot_map
    from wsss.demo.model import WEIGHTS

    typer.echo(json.dumps(zero_shot_map(weights or WEIGHTS, root, split), indent=2))
