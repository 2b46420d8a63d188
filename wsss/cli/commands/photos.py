"""A folder of photos: masks for them, tags for them, a trained network on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

PANEL = "Photos"
Photos = Annotated[Path, typer.Argument(help="Folder with photos.", show_default=False)]
ClipModel = Annotated[
    str, typer.Option("--clip", help="Name of a CLIP of open_clip, or a model config (JSON).")
]
ClipWeights = Annotated[
    str, typer.Option("--weights", help="Name of its weights, or a weight file on this machine.")
]


def photos(
    folder: Photos,
    tags: Annotated[
        Path | None,
        typer.Option(help="Table with the columns image,tags.", show_default="FOLDER/tags.csv"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to.", show_default="<FOLDER's name>-masks")
    ] = None,
    recipe: Annotated[
        Literal["fast", "best"],
        typer.Option(help="fast: nothing is trained. best: WeCLIP is trained on the photos."),
    ] = "fast",
    classes: Annotated[
        str, typer.Option(help="Names with commas between. Default: all tags of the table.")
    ] = "",
    clip: ClipModel = "",
    weights: ClipWeights = "",
    config: Annotated[
        list[Path], typer.Option("--config", "-c", help="YAML with further settings (repeat).")
    ] = [],  # noqa: B006
    cores: Annotated[str, typer.Option(help="Processor cores to use.")] = "all",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Check all and list the jobs; write nothing.")
    ] = False,
) -> None:
    """Masks for a folder of photos with tags, a page to look at them, a list of what to review.

    Run it again after adding, editing, deleting or retagging photos. Only what changed is computed.
    """
    from wsss.cli.weights_check import check_weights
    from wsss.config.base import overlay
    from wsss.config.load import merged_yaml
    from wsss.photos.check import check_clip_files, check_photos
    from wsss.photos.settings import photo_settings
    from wsss.pipeline.photo_run import PhotoRun, lasting_classes, results_folder

    out = results_folder(folder, out)
    changes = merged_yaml(*config)
    chosen = {key: value for key, value in (("model", clip), ("pretrained", weights)) if value}
    changes = overlay(changes, {"clip": chosen} if chosen else {})
    names = [name.strip() for name in classes.split(",") if name.strip()]
    settings = photo_settings(folder, recipe, tags=tags, classes=names, changes=changes)
    check_clip_files(settings.clip)
    check_weights(settings)
    checked = check_photos(settings.data)
    for line in checked.lines():
        typer.echo(line)
    typer.echo(f"CLIP: {settings.clip.model}, weights {settings.clip.pretrained}")
    typer.echo(f"results: {out}")
    lasting = lasting_classes(out, checked.classes)
    settings = photo_settings(folder, recipe, tags=tags, classes=lasting, changes=changes)
    run = PhotoRun(settings, out, cores)
    if dry_run:
        typer.echo(run.planned())
        return
    if code := run.start():
        raise typer.Exit(code)
    for line in run.summary():
        typer.echo(line)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(rich_help_panel=PANEL)(photos)
