"""`wsss truth …`: ground truth in other forms. With scoring, all that opens pixel labels."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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

if TYPE_CHECKING:
    from wsss.config.data import CocoRule

app = typer.Typer(
    help="Pixel labels: COCO's masks as PNGs, SBD's masks, tags of masks, masks to learn from.",
    no_args_is_help=True,
)


@app.command()
def coco_masks(
    root: Annotated[Path, typer.Argument(help="Folder of COCO 2014.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder to write <rule>/{train,val}2014/ to.")],
    rule: Annotated[
        str, typer.Option(help="Which annotation is visible: crowd_void, voc_style or weakclip.")
    ] = "crowd_void",
    part: Annotated[list[str], typer.Option(help="train or val (repeat).")] = ["train", "val"],  # noqa: B006
    workers: Workers = 0,
) -> None:
    """Draw COCO's label maps from the instances JSON: palette PNGs, 0, 1 … 80 and 255.

    The rules are those of data.coco_truth, by which scoring draws. Name the folder in data.masks,
    or use it with any other tool. Resumes where it was interrupted.
    """
    from wsss.score.truth.coco_masks import draw_part

    drawable = _drawable(rule)
    for name in _parts(part):
        images, drawn = draw_part(root, name, out, drawable, workers=workers or os.cpu_count() or 1)
        typer.echo(f"{name}2014: {images} masks in {out / rule}, {drawn} drawn now")


@app.command()
def coco_rules(
    root: Annotated[Path, typer.Argument(help="Folder of COCO 2014.", show_default=False)],
    part: Annotated[list[str], typer.Option(help="train or val (repeat).")] = ["train", "val"],  # noqa: B006
    workers: Workers = 0,
) -> None:
    """Measure how far the rules of data.coco_truth agree: mIoU of one against another."""
    from wsss.score.truth.coco_agreement import compare_rules

    for name in _parts(part):
        typer.echo(str(compare_rules(root, name, workers=workers or os.cpu_count() or 1)))


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
    """Read tags from the masks of VOC or COCO, as some papers did (data.tags: masks).

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
    """Pixel labels of the training images as masks to learn from, only with supervision: masks.

    For the fully supervised upper bound. No weakly supervised stage takes them.
    """
    from wsss.score.truth.training_masks import run

    values = stage_values("truth_masks", config, workers=workers)
    run(manifest, parse_shard(shard), out, **values)


@app.command()
def corrected_masks(
    manifest: ManifestDir,
    out: Annotated[Path, typer.Option(help="HDF5 shard to write.")],
    state: Annotated[
        str, typer.Option(help="Used by the workflow: the state of the PNGs.", hidden=True)
    ] = "",
    config: ConfigFiles = DEFAULT_CONFIG,
    workers: Workers = 0,
) -> None:
    """Corrected masks of training images as masks to learn from, only with retrain.corrected.

    Images without one keep their pseudo mask. The segmenter is then of mixed supervision.
    """
    from wsss.score.truth.corrected import run

    values = stage_values("corrected_masks", config, workers=workers)
    run(manifest, out, state=state, **values)


def import_masks(
    source: Annotated[
        Path,
        typer.Argument(
            help="COCO or Label Studio: the JSON. CVAT: the archive. PNGs: the folder.",
            show_default=False,
        ),
    ],
    form: Annotated[
        Literal["coco", "label-studio", "cvat", "png"],
        typer.Option("--format", help="What wrote it. png: index PNGs named as the images."),
    ],
    run: Annotated[
        Path, typer.Option(help="Results of the run that was exported, e.g. results/photos.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of masks to write; a later import adds to it.")],
    keep_empty: Annotated[
        bool,
        typer.Option("--keep-empty", help="COCO: images without annotation are background."),
    ] = False,
    unchanged: Annotated[
        bool,
        typer.Option(
            "--unchanged", help="Also take masks that are as the run has them: they were approved."
        ),
    ] = False,
) -> None:
    """Take corrected masks back, as PNGs for data.masks or retrain.corrected.

    Only images that somebody annotated are taken: masks that are as the run has them are left out.
    Labels are matched by their names.
    """
    from wsss.export.own_masks import own_masks, refuse_own_folder, tolerance_of
    from wsss.export.source import manifest_of
    from wsss.score.truth.corrections.importer import import_masks as run_import

    manifest_dir = manifest_of(run)
    refuse_own_folder(out, run)
    with ExitStack() as stack:
        takes_all = unchanged or form == "label-studio"  # which says itself what was submitted
        tolerance = tolerance_of(source) if form == "coco" else None
        run_masks = None if takes_all else stack.enter_context(own_masks(run, tolerance))
        report = run_import(
            source, form, manifest_dir, out, run_masks=run_masks, keep_empty=keep_empty
        )
    typer.echo(str(report))


def register(app: typer.Typer, panel: str) -> None:
    """Add the command that stands beside `wsss export`."""
    app.command(rich_help_panel=panel)(import_masks)


def _parts(names: list[str]) -> list[str]:
    from wsss.data.datasets.coco import PARTS

    for name in names:
        if name not in PARTS:
            raise typer.BadParameter(f"found {name!r}, expected train or val")
    return names


def _drawable(name: str) -> CocoRule:
    from wsss.score.truth.coco import DRAWN_RULES

    for rule in DRAWN_RULES:
        if rule == name:
            return rule
    raise typer.BadParameter(f"found {name!r}, expected {', '.join(DRAWN_RULES)}")
