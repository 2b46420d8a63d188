"""A folder of photos: masks for them, tags for them, a trained network on them."""

from __future__ import annotations

import functools
import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from wsss.cli.options import Device, Precision

PANEL = "Photos"
Photos = Annotated[Path, typer.Argument(help="Folder with photos.", show_default=False)]
PhotosOrOne = Annotated[
    Path, typer.Argument(help="Folder with photos, or one photo.", show_default=False)
]
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
    cores: Annotated[str, typer.Option(help="Processor cores to use: all, or a number.")] = "all",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Check all and list the jobs; write nothing.")
    ] = False,
) -> None:
    """Masks for a folder of photos with tags, a page to look at them, a list of what to review.

    Run it again after adding, editing, deleting or retagging photos. Only what changed is computed.
    """
    from wsss.cli.weights_check import check_weights
    from wsss.cli.weights_list import weights_of
    from wsss.config.base import overlay
    from wsss.config.errors import ConfigError
    from wsss.config.load import merged_yaml
    from wsss.photos.check import check_clip_files, check_corrected, check_photos
    from wsss.photos.settings import photo_settings
    from wsss.pipeline.engine import cores_problem
    from wsss.pipeline.photo_run import (
        PhotoRun,
        is_of_photos,
        lasting_classes,
        refuse_other_files,
        refuse_other_photos,
        results_folder,
    )

    if problem := cores_problem(cores):
        raise ConfigError(problem)
    out = results_folder(folder, out)
    refuse_other_files(out, is_ours=is_of_photos(out))
    refuse_other_photos(out, folder)
    changes = merged_yaml(*config)
    chosen = {key: value for key, value in (("model", clip), ("pretrained", weights)) if value}
    changes = overlay(changes, {"clip": chosen} if chosen else {})
    names = [name.strip() for name in classes.split(",") if name.strip()]
    settings_of = functools.partial(
        photo_settings,
        folder,
        recipe,
        tags=tags,
        changes=changes,
        where=", ".join(map(str, config)),
    )
    settings = settings_of(classes=names)
    check_clip_files(settings.clip)
    check_corrected(settings.retrain)
    check_weights(settings)
    checked = check_photos(settings.data, settings.clip.long_side)
    for line in checked.lines(settings.compute.workers):
        typer.echo(line)
    for listed in weights_of([settings], out / "results" / "cache"):
        if listed.path is not None:
            typer.echo(f"weights: {listed.path}")
        elif listed.addresses:
            typer.echo(
                f"weights: {listed.name} are not here yet; the run downloads "
                f"{' or '.join(listed.addresses)}. Without a network, fetch that file elsewhere "
                "and name it by --weights"
            )
    typer.echo(f"results: {out}")
    lasting = lasting_classes(out, checked.classes)
    settings = settings_of(classes=lasting, photos=checked.photos)
    run = PhotoRun(settings, out, cores)
    if dry_run:
        typer.echo(run.planned())
        return
    if code := run.start():
        raise typer.Exit(code)
    for line in run.summary():
        typer.echo(line)


def suggest(
    photos: PhotosOrOne,
    words: Annotated[str, typer.Option(help="Words to choose from, with commas between.")],
    threshold: Annotated[
        float, typer.Option(help="A word is a tag from this probability on.", min=0, max=1)
    ] = 0.1,
    out: Annotated[
        Path | None,
        typer.Option(help="Table to write (CSV).", show_default="tags.csv next to the photos"),
    ] = None,
    clip: ClipModel = "",
    weights: ClipWeights = "",
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Tags that CLIP proposes, with the probability of each word: a table to review.

    The probabilities are among all words and words of surroundings (sky, grass, wall …).
    """
    from wsss.config.clip import ClipConfig
    from wsss.data.counted import counted
    from wsss.photos.check import check_clip_files, check_words
    from wsss.photos.suggest import suggest_tags
    from wsss.pipeline.photo_run import results_folder

    folder = photos.parent if photos.is_file() else photos
    table = out or folder / "tags.csv"
    if table.exists():
        raise typer.BadParameter(
            f"{table} exists, and may hold corrections; choose another file, or delete it",
            param_hint="--out",
        )
    given = {key: value for key, value in (("model", clip), ("pretrained", weights)) if value}
    settings = ClipConfig(**given)
    check_clip_files(settings)
    names = [word.strip() for word in words.split(",") if word.strip()]
    check_words(names)
    cache = results_folder(folder, None) / "results" / "cache"  # that of a run on these photos
    numerics = {"device": device, "precision": precision}
    photo_count, tagged = suggest_tags(
        photos, names, table, cache, clip=settings, threshold=threshold, **numerics
    )
    typer.echo(f"with a tag: {tagged} of {counted(photo_count, 'photo')}: {table}")
    option = ["--tags", str(out)] if out else []
    typer.echo(f"look through it, then: {shlex.join(['wsss', 'photos', str(folder), *option])}")


def predict(
    photos: PhotosOrOne,
    weights: Annotated[
        Path, typer.Option(help="Checkpoint of a segmenter, its run, or what `wsss photos` wrote.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write to.", show_default="<name>-predicted"),
    ] = None,
    crf: Annotated[bool, typer.Option("--crf", help="Refine the masks with a dense CRF.")] = False,
    long_side: Annotated[
        int, typer.Option(help="Larger photos are scaled to this side for the network.", min=32)
    ] = 1024,
    scales: Annotated[
        str,
        typer.Option(
            help="Scales to average over, with commas between, e.g. 0.75,1,1.25.",
            show_default="those of the checkpoint",
        ),
    ] = "",
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Masks of new photos by a trained segmenter, with overlays and a page. Needs no tags.

    Run it again after an interruption, or with other photos. Only what is missing is computed.
    """
    from wsss.config.base import MOST_SCALE
    from wsss.data.counted import counted
    from wsss.photos.page import INDEX
    from wsss.photos.predict import RECORD, predict_photos
    from wsss.photos.tree import was_begun
    from wsss.pipeline.photo_run import refuse_other_files, results_folder
    from wsss.pipeline.run_folder import run_folder

    try:
        numbers = [float(scale) for scale in scales.split(",")] if scales else None
    except ValueError:
        text = f"{scales!r}: expected numbers with commas between, e.g. 0.75,1,1.25"
        raise typer.BadParameter(text, param_hint="--scales") from None
    if wrong := [number for number in numbers or () if not 0 < number <= MOST_SCALE]:
        text = f"found {wrong[0]:g}, expected numbers above 0 and up to {MOST_SCALE}"
        raise typer.BadParameter(text, param_hint="--scales")
    out = results_folder(photos, out, ending="predicted")
    refuse_other_files(out, is_ours=was_begun(out / RECORD))
    numerics = {"device": device, "precision": precision}
    named = run_folder(weights, "segmenter") if weights.is_dir() else weights
    record = predict_photos(
        photos, named, out, crf=crf, long_side=long_side, scales=numbers, **numerics
    )
    typer.echo(f"masks of {counted(len(record.entries), 'photo')}: {out / 'masks'}")
    typer.echo(f"page: {(out / INDEX).absolute().as_uri()}")


tags_app = typer.Typer(help="Tags that CLIP proposes for photos.", no_args_is_help=True)
tags_app.command("suggest")(suggest)


@tags_app.callback()
def _tags() -> None:
    """A command of several words, although there is one now."""


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(rich_help_panel=PANEL)(photos)
    app.add_typer(tags_app, name="tags", rich_help_panel=PANEL)
    app.command(rich_help_panel=PANEL)(predict)
