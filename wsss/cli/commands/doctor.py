"""`wsss doctor`: whether this machine can do what a configuration asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.doctor import all_checks, write_checks
from wsss.cli.options import DEFAULT_CACHE, DEFAULT_CONFIG, Cache
from wsss.config.load import merged_yaml
from wsss.config.runs import expand_runs

PANEL = "Configuration"


def doctor(
    config: Annotated[
        list[Path],
        typer.Option(
            "--config",
            "-c",
            help="Configuration. Repeat to lay presets over it.",
            show_default="config.yaml, or the demo's where there is none",
        ),
    ] = [],  # noqa: B006
    cache: Cache = DEFAULT_CACHE,
) -> None:
    """Check this machine: Python, torch, GPU, OpenCV, disk, packages and weights.

    Each line says ok, warning or failure, and what to do. Nothing is downloaded and no GPU is
    locked. Exit code 1: something failed.
    """
    files = config or [file for file in DEFAULT_CONFIG if file.is_file()]
    runs = expand_runs(merged_yaml(*files), where=", ".join(map(str, files)) or "the defaults")
    results = Path("results")
    raise typer.Exit(not write_checks(all_checks(list(runs.values()), results, cache), typer.echo))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel=PANEL)(doctor)
