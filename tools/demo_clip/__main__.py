"""Train the demo's CLIP from scratch, and measure it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from tools.demo_clip.bars import bars
from tools.demo_clip.evaluate import zero_shot_map
from tools.demo_clip.model import WEIGHTS
from tools.demo_clip.pretrain import Recipe
from tools.demo_clip.pretrain import pretrain as train

app = typer.Typer(help=__doc__, no_args_is_help=True)


@app.command()
def pretrain(
    out: Annotated[Path, typer.Argument(help="File of weights to write (.safetensors).")],
    seed: Annotated[
        int, typer.Option(help="Seed; the same seed gives the same result.", min=0)
    ] = 0,
    scenes: Annotated[int, typer.Option(help="Scenes to draw and learn from.", min=64)] = 12000,
    effort: Annotated[
        float,
        typer.Option(help="Share of all training steps to take; less is for trying out.", min=0),
    ] = 1.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress bar.")] = False,
) -> None:
    """Train the demo's CLIP from scratch on drawn scenes and their tags.

    With the default options this makes weights like the shipped ones, in about 37 minutes on two
    idle cores. The demo's own images are never used.
    """
    recipe = replace(Recipe().scaled(effort), scenes=scenes)
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
        Path, typer.Option(help="File of weights.", show_default="the shipped ones")
    ] = WEIGHTS,
    split: Annotated[str, typer.Option(help="train or val.")] = "val",
) -> None:
    """Print how well the CLIP finds the tags without training (mean average precision, 0..1)."""
    typer.echo(json.dumps(zero_shot_map(weights, root, split), indent=2))


if __name__ == "__main__":
    app(prog_name="python -m tools.demo_clip")
