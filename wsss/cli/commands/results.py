"""Scores, tables and pictures as sub-commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.options import DEFAULT_CONFIG, ConfigFiles, ManifestDir, Split, stage_values
from wsss.pipeline.job import current_job
from wsss.score.product import ProductName

PANEL = "Results"


def score(
    product: Annotated[
        ProductName,
        typer.Argument(help="What the shards hold; `blob` is the floor that ignores the image."),
    ],
    manifest: ManifestDir,
    out: Annotated[Path, typer.Option(help="Records to write (JSON).")],
    shards: Annotated[
        list[Path],
        typer.Argument(help="The shards of the split; none for `blob`.", show_default=False),
    ] = [],  # noqa: B006
    split: Split = "train",
    config: ConfigFiles = DEFAULT_CONFIG,
) -> None:
    """Score CAMs, seeds, masks or predictions (a segmenter's, a refiner's) against the truth."""
    from wsss.score.settings import Settings
    from wsss.score.stage import run

    values = stage_values(f"score_{product}", config)
    workers = values.pop("compute").workers
    run(product, manifest, split, shards, out, Settings(**values), workers=workers)


def table(
    records: Annotated[
        list[Path],
        typer.Argument(
            help="Records of `wsss score`, in the order of the rows.", show_default=False
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder to write table.md, table.csv and table.html to.")
    ],
) -> None:
    """One table of all records: Markdown, CSV and HTML."""
    from wsss.score.tables.write import make_table

    make_table(records, out)


def compare(
    out: Annotated[
        Path, typer.Option(help="Folder to write sweep.md, sweep.csv and sweep.html to.")
    ],
    records: Annotated[
        list[Path] | None,
        typer.Argument(help="Records of `wsss score`; one row per run.", show_default=False),
    ] = None,
    name: Annotated[str, typer.Option(help="Title of the table.")] = "runs",
) -> None:
    """One table of several runs: a row per run, a column per product; turned if narrower."""
    from wsss.score.record import read_records
    from wsss.score.tables.comparison import make_comparison, rows_by_run

    if records:
        make_comparison(rows_by_run(read_records(records), name), out, name)
    elif job := current_job():  # a file may belong to several rows
        files = {row: list(map(Path, paths)) for row, paths in job.sections.items()}
        make_comparison({row: read_records(paths) for row, paths in files.items()}, out, name)
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
    cams: Annotated[list[Path], typer.Option(help="CAM shards (repeat).")] = [],  # noqa: B006
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


def loss_curve(
    log: Annotated[
        Path, typer.Argument(help="Loss curve of a training (CSV).", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Picture to write.")],
    title: Annotated[str, typer.Option(help="Above the picture.")] = "",
) -> None:
    """Draw a loss curve."""
    from wsss.score.figures.curves import loss_curve as draw

    draw(log, out, title)


def class_chart(
    records: Annotated[
        list[Path], typer.Argument(help="Records of `wsss score`.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Picture to write.")],
) -> None:
    """Draw the IoU of each class, row by row."""
    from wsss.score.figures.curves import class_chart as draw

    draw(records, out)


def show(
    folder: Annotated[
        Path, typer.Argument(help="Results of a run, e.g. results/demo.", show_default=False)
    ],
) -> None:
    """Print a run's table and the paths of its pictures and report."""
    from wsss.score.tables.terminal import print_results

    print_results(folder)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    commands = (score, table, compare, efficiency, contact_sheet, class_chart, loss_curve, show)
    for command in commands:
        app.command(rich_help_panel=PANEL)(command)
