"""Scores, tables and pictures as sub-commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.options import (
    DEFAULT_CACHE,
    DEFAULT_CONFIG,
    Cache,
    ConfigFiles,
    Device,
    ManifestDir,
    Precision,
    SeedShards,
    Split,
    Workers,
    stage_values,
)
from wsss.pipeline.job import current_job, given_files
from wsss.score.product import ProductName

PANEL = "Results"
Picture = Annotated[Path, typer.Option(help="Picture to write.")]
CamShards = Annotated[list[Path], typer.Option(help="CAM shards (repeat).")]


def score(
    product: Annotated[
        ProductName,
        typer.Argument(help="What the shards hold. `blob` is the floor that ignores the image."),
    ],
    manifest: ManifestDir,
    out: Annotated[Path, typer.Option(help="Records to write (JSON).")],
    shards: Annotated[
        list[Path],
        typer.Argument(help="The shards of the split, none for `blob`.", show_default=False),
    ] = [],  # noqa: B006
    split: Split = "train",
    config: ConfigFiles = DEFAULT_CONFIG,
    workers: Workers = 0,
) -> None:
    """Score CAMs, seeds, masks or predictions (a segmenter's, a refiner's) against the truth."""
    from wsss.score.settings import Settings
    from wsss.score.stage import run

    values = stage_values(f"score_{product}", config, workers=workers)
    processes = values.pop("compute").workers
    run(product, manifest, split, shards, out, Settings(**values), workers=processes)


def score_labels(
    cams: Annotated[
        list[Path], typer.Argument(help="CAM shards of the train split.", show_default=False)
    ],
    manifest: ManifestDir,
    checkpoint: Annotated[
        Path, typer.Option(help="Checkpoint of `wsss refine-train`, its snapshots next to it.")
    ],
    out: Annotated[Path, typer.Option(help="Table to write (CSV): a row per step.")],
    picture: Annotated[Path, typer.Option(help="Curve to write.")],
    seeds: SeedShards = [],  # noqa: B006
    images: Annotated[int, typer.Option(help="Training images, spread over the classes.")] = 100,
    cache: Cache = DEFAULT_CACHE,
    config: ConfigFiles = DEFAULT_CONFIG,
    device: Device = "",
    precision: Precision = "",
    workers: Workers = 0,
) -> None:
    """Score the labels that a refiner learned, step by step (refine.train.snapshots_every)."""
    from wsss.score.label_quality import run

    values = stage_values(
        "refine_labels", config, device=device, precision=precision, workers=workers
    )
    run(manifest, cams, checkpoint, out, picture, cache, seeds, images=images, **values)


def table(
    records: Annotated[
        list[Path],
        typer.Argument(
            help="Records of `wsss score`, in the order of the rows.", show_default=False
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(help="Folder to write table, classes and pairs to, each .md, .csv and .html."),
    ],
) -> None:
    """One table of all records, and two of their classes: Markdown, CSV and HTML.

    classes has the boundary IoU and the shares of wrong pixels of each class.
    pairs has classes alone and together with others.
    """
    from wsss.score.image_counts_file import read_scored
    from wsss.score.tables.classes import make_class_tables
    from wsss.score.tables.write import make_table

    make_table(records, out)
    make_class_tables(read_scored(records), out)


def compare(
    out: Annotated[
        Path, typer.Option(help="Folder to write sweep.md, sweep.csv and sweep.html to.")
    ],
    records: Annotated[
        list[Path] | None,
        typer.Argument(help="Records of `wsss score`, one row per run.", show_default=False),
    ] = None,
    name: Annotated[str, typer.Option(help="Title of the table.")] = "runs",
) -> None:
    """One table of several runs: a row per run and a column per product, or the reverse."""
    from wsss.score.image_counts_file import read_scored
    from wsss.score.tables.comparison import make_comparison, rows_by_run

    if records:
        make_comparison(rows_by_run(read_scored(records), name), out, name)
    elif job := current_job():  # a file may belong to several rows
        files = {row: list(map(Path, paths)) for row, paths in job.sections.items()}
        make_comparison({row: read_scored(paths) for row, paths in files.items()}, out, name)
    else:
        raise typer.BadParameter("pass files of records")


def efficiency(
    cost: Annotated[
        Path, typer.Argument(help="What `wsss refine-train` wrote (JSON).", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder to write efficiency.md, .csv and .html to.")],
) -> None:
    """Parameters, speed and memory of a refiner's training, next to published ones."""
    from wsss.score.tables.efficiency import make_efficiency

    make_efficiency(cost, out)


def contact_sheet(
    manifest: ManifestDir,
    out: Annotated[Path, typer.Option(help="PNG to write.")],
    split: Split = "train",
    cams: CamShards = [],  # noqa: B006
    seeds: Annotated[list[Path], typer.Option(help="Seed shards (repeat).")] = [],  # noqa: B006
    masks: Annotated[list[Path], typer.Option(help="Mask shards (repeat).")] = [],  # noqa: B006
    refiner: Annotated[
        list[Path], typer.Option(help="Shards of the refiner's predictions (repeat).")
    ] = [],  # noqa: B006
    predictions: Annotated[list[Path], typer.Option(help="Prediction shards (repeat).")] = [],  # noqa: B006
    config: ConfigFiles = DEFAULT_CONFIG,
) -> None:
    """A contact sheet: image, CAM, pseudo mask, prediction, truth, in palette colours."""
    from wsss.score.figures.contact_sheet import contact_sheet as draw

    values = stage_values("pictures", config)
    del values["compute"]  # one process draws
    values |= {"cams": cams, "seeds": seeds, "masks": masks}
    values |= {"refiner": refiner, "predictions": predictions}
    draw(manifest, split, out, **values)


def page(
    manifest: ManifestDir,
    out: Annotated[Path, typer.Option(help="Folder to write index.html and page/ to.")],
    records: Annotated[
        list[Path], typer.Argument(help="Records of `wsss score`.", show_default=False)
    ] = [],  # noqa: B006
    cams: CamShards = [],  # noqa: B006
    seeds: Annotated[list[Path], typer.Option(help="Seed shards (repeat).")] = [],  # noqa: B006
    scores: Annotated[
        list[Path], typer.Option(help="Shards of the refiner's class scores (repeat).")
    ] = [],  # noqa: B006
    masks: Annotated[list[Path], typer.Option(help="Mask shards (repeat).")] = [],  # noqa: B006
    refiner: Annotated[
        list[Path], typer.Option(help="Shards of the refiner's predictions (repeat).")
    ] = [],  # noqa: B006
    predictions: Annotated[list[Path], typer.Option(help="Prediction shards (repeat).")] = [],  # noqa: B006
    embedded: Annotated[
        Path | None,
        typer.Option(help="Also write one file with fewer images and all pictures in it."),
    ] = None,
    config: ConfigFiles = DEFAULT_CONFIG,
    workers: Workers = 0,
) -> None:
    """The result page: every stage of every image, charts, filters. Open it in a browser."""
    from wsss.score.page.build import make_page
    from wsss.score.page.files import RunFiles

    values = stage_values("page", config, workers=workers)
    typed = {"cams": cams, "seeds": seeds, "scores_grid": scores, "masks": masks}
    typed |= {"refiner_predictions": refiner, "predictions": predictions}
    shards = {product: given_files(product, paths) for product, paths in typed.items()}
    run = RunFiles(values.pop("name"), manifest, shards, records)
    make_page(run, out, embedded=embedded, workers=values.pop("compute").workers, **values)


def gallery(
    manifest: ManifestDir,
    out: Annotated[Path, typer.Option(help="Folder to write masks, tables and page to.")],
    record: Annotated[Path, typer.Option(help="Record to write (JSON): what the folder shows.")],
    masks: Annotated[list[Path], typer.Argument(help="Mask shards.", show_default=False)] = [],  # noqa: B006
    cams: Annotated[
        list[Path], typer.Option(help="CAM shards, for CLIP's probabilities (repeat).")
    ] = [],  # noqa: B006
    config: ConfigFiles = DEFAULT_CONFIG,
    workers: Workers = 0,
) -> None:
    """Masks and overlays of photos as files, what to review, and a page of all. Needs no truth."""
    from wsss.photos.stage import run

    values = stage_values("gallery", config, workers=workers)
    masks = list(given_files("masks", masks))
    if not masks:
        raise typer.BadParameter("pass mask shards")
    run(manifest, masks, given_files("cams", cams), out, record, **values)


def side_by_side(
    first: Annotated[
        Path, typer.Argument(help="Results of a run, e.g. results/demo.", show_default=False)
    ],
    second: Annotated[
        Path, typer.Argument(help="Another run on the same images.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder to write index.html and page/ to.")],
    workers: Annotated[int, typer.Option(help="Processes that draw.", min=1)] = 2,
) -> None:
    """The result page of two runs: the difference of each class, and the masks of both."""
    from wsss.score.page.build import side_by_side as make
    from wsss.score.page.files import read_shown

    make(read_shown(first), read_shown(second), out, workers=workers)


def loss_curve(
    log: Annotated[
        Path, typer.Argument(help="Loss curve of a training (CSV).", show_default=False)
    ],
    out: Picture,
    title: Annotated[str, typer.Option(help="Above the picture.")] = "",
) -> None:
    """Draw a loss curve."""
    from wsss.score.figures.curves import loss_curve as draw

    draw(log, out, title)


def class_chart(
    records: Annotated[
        list[Path], typer.Argument(help="Records of `wsss score`.", show_default=False)
    ],
    out: Picture,
) -> None:
    """Draw the IoU of each class, row by row."""
    from wsss.score.figures.curves import class_chart as draw

    draw(records, out)


def noise_chart(
    records: Annotated[
        list[Path], typer.Argument(help="Records of `wsss score` of all runs.", show_default=False)
    ],
    out: Picture,
) -> None:
    """Draw the mIoU of each product over the share of wrong tags (tag_noise)."""
    from wsss.score.figures.lines import noise_chart as draw

    draw(records, out)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    charts = (class_chart, loss_curve, noise_chart)
    pages = (contact_sheet, page, gallery, side_by_side)
    for command in (score, score_labels, table, compare, efficiency, *pages, *charts):
        app.command(rich_help_panel=PANEL)(command)
