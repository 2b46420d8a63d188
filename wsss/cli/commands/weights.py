"""`wsss weights …`: which weights are on this machine, and downloads ahead of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.options import DEFAULT_CACHE, Cache
from wsss.cli.weights_list import ListedWeights, weights_by_name, weights_of
from wsss.config.load import merged_yaml
from wsss.config.runs import expand_runs

app = typer.Typer(
    help="Weight files: which are on this machine, and download those that are missing.",
    no_args_is_help=True,
)

Name = Annotated[
    str,
    typer.Argument(
        help="MODEL/TAG of open_clip (ViT-B-16-quickgelu/openai) or of a DINOv2 in timm "
        "(vit_small_patch14_dinov2/lvd142m), or a name for retrain.init (mit-b0).",
        show_default=False,
    ),
]
Config = Annotated[
    list[Path],
    typer.Option("--config", "-c", help="Instead of a name: all weights of this configuration."),
]


@app.command()
def check(name: Name = "", config: Config = [], cache: Cache = DEFAULT_CACHE) -> None:  # noqa: B006
    """Say for each weight file where it is, or where to get it; exit code 1 if one is missing."""
    listed = _listed(name, config, cache)
    for weights in listed:
        typer.echo(str(weights))
    raise typer.Exit(any(weights.path is None for weights in listed))


@app.command()
def fetch(name: Name = "", config: Config = [], cache: Cache = DEFAULT_CACHE) -> None:  # noqa: B006
    """Download the weight files that are missing, and print where each one is.

    The sha256 is compared where it is known. An interrupted download of the Hugging Face hub is
    resumed.
    """
    missing = 0
    for weights in _listed(name, config, cache):
        if weights.path is None and weights.fetch is not None:
            typer.echo(f"fetched  {weights.name}: {weights.fetch()}")
        else:
            typer.echo(str(weights))
            missing += weights.path is None
    raise typer.Exit(bool(missing))


def _listed(name: str, config: list[Path], cache: Path) -> list[ListedWeights]:
    if bool(name) == bool(config):
        raise typer.BadParameter("give either a name or --config")
    if name:
        return [weights_by_name(name, cache)]
    runs = expand_runs(merged_yaml(*config), where=", ".join(map(str, config)))
    listed = weights_of(runs.values(), cache)
    if not listed:
        typer.echo("this configuration needs no weight file")
    return listed
